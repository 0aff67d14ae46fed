"""Records some numbers of the recipe (recipe.py) in tests/golden/recipe, so that the C++ side (tests/support/recipe.h) can
prove that it makes the same ones. Needs numpy alone.
"""

import golden
import recipe


def record():
    values = recipe.uniform("lora layers.0.q_proj.A", (1000,), 2.0**-5)
    arrays = {"uniform": ("f32", values), "below": ("i32", recipe.below("ids", 100, 512)), "projections": ("f64", recipe.projections(values))}
    return {"seed": str(recipe.seed_of("lora layers.0.q_proj.A"))}, arrays


if __name__ == "__main__":
    golden.run("recipe", {"recipe": record})
