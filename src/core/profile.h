// Where the time of runs goes: seconds and calls per kernel and per step of a plan, printed to
// stderr when the process ends. On with SUPERSONIC_PROFILE=1. Rows are made while a plan is bound,
// so that a run allocates nothing; steps that do the same at the same line of the program share one
// row. Steps are waited for one by one, so nothing overlaps.
#pragma once
#include "core/plan.h"

namespace supersonic::profile {

bool enabled();
double now();                       // seconds, of a clock that never goes back
int row_of(const Step& step);       // the step's row; the same for steps alike
void add(int row, double seconds);  // one call

}  // namespace supersonic::profile
