"""Conversations and templates for the chat-template tests, and jinja2 with Hugging Face's settings as the oracle."""
import json
from datetime import datetime, timezone

import jinja2
import jinja2.ext
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    """{% generation %}: renders its body and records where, in the rendered text."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller):
        return "\ue000" + caller() + "\ue001"


def hf_environment(now):
    def refuse(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda f: datetime.fromtimestamp(now).strftime(f)
    return env


def render(source, data, now):
    """{'text', 'generation': [[start, end] in characters]} or {'error'}."""
    try:
        variables = {"tools": None, "documents": None, "add_generation_prompt": False, **data}
        marked = hf_environment(now).from_string(source).render(**variables)
    except Exception as error:  # whatever jinja2 and the template raise
        return {"error": f"{type(error).__name__}: {error}"}
    text, ranges, opened = [], [], None
    for c in marked:
        if c == "\ue000":
            opened = len(text)
        elif c == "\ue001":
            ranges.append([opened, len(text)])
        else:
            text.append(c)
    return {"text": "".join(text), "generation": ranges}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather for a city & \"more\" <now>",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name, e.g. Zürich"},
                    "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                    "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 1.5e20},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["city"],
            },
            "return": {"type": "string", "description": "The weather"},
        },
    },
    {"type": "function", "function": {"name": "noop", "description": "Nothing.", "parameters": {"type": "object", "properties": {}}}},
]
U, A, S, T = "user", "assistant", "system", "tool"


def m(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, id="call00001"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CONVERSATIONS = {
    name: {**TOKENS, **data}
    for name, data in {
        "one user": {"messages": [m(U, "Hello")]},
        "prompt": {"messages": [m(U, "Hello")], "add_generation_prompt": True},
        "system": {"messages": [m(S, "Be brief."), m(U, "Hi\nthere"), m(A, " Hello! ")]},
        "multi turn": {
            "messages": [m(S, "S"), m(U, "one"), m(A, "1"), m(U, "two"), m(A, "2"), m(U, "three")],
            "add_generation_prompt": True,
        },
        "no system multi": {"messages": [m(U, " a "), m(A, "\tb\n"), m(U, "c"), m(A, "d")]},
        "empty text": {"messages": [m(U, ""), m(A, "")]},
        "empty": {"messages": []},
        "unicode and specials": {
            "messages": [m(U, "<|im_end|> ❤️ \u00a0 \u2028 'q' \"d\" \\ {{ x }} {% y %}"), m(A, "日本語 ß ﬁ \x7f")]
        },
        "parts": {"messages": [m(U, [{"type": "text", "text": "Look "}, {"type": "image"}, {"type": "text", "text": "here"}])]},
        "tools": {"messages": [m(U, "Weather in Paris?")], "tools": TOOLS, "add_generation_prompt": True},
        "tools system": {"messages": [m(S, "Sys"), m(U, "Weather?")], "tools": TOOLS},
        "tool call": {
            "messages": [
                m(U, "Weather in Paris?"),
                m(A, "", tool_calls=[call("get_weather", {"city": "Paris", "days": 2, "x": [1.0, None, True]})]),
                m(T, "18 °C", name="get_weather", tool_call_id="call00001"),
                m(A, "It is 18 °C."),
                m(U, "Thanks"),
            ],
            "tools": TOOLS,
            "add_generation_prompt": True,
        },
        "tool call json": {
            "messages": [
                m(U, "Both?"),
                m(
                    A,
                    None,
                    tool_calls=[
                        call("get_weather", '{"city": "A"}', "aaaaaaaa1"),
                        call("noop", "{}", "aaaaaaaa2"),
                    ],
                ),
                m(T, '{"t": 1}', tool_call_id="aaaaaaaa1", name="get_weather"),
                m(T, "done", tool_call_id="aaaaaaaa2", name="noop"),
            ],
            "tools": TOOLS,
            "add_generation_prompt": True,
        },
        "reasoning": {
            "messages": [
                m(U, "1+1?"),
                m(A, "2", reasoning_content="one and one", thinking="one and one"),
                m(U, "2+2?"),
                m(A, "<think>\nfour\n</think>\n\n4"),
                m(U, "ok?"),
            ],
            "add_generation_prompt": True,
            "enable_thinking": True,
        },
        "no thinking": {"messages": [m(U, "x")], "add_generation_prompt": True, "enable_thinking": False, "thinking": False},
        "date": {"messages": [m(S, "s"), m(U, "x")], "date_string": "01 Jan 2025", "reasoning_effort": "high"},
        "odd roles": {"messages": [m("developer", "dev"), m(U, "u"), m(U, "again"), m(A, "a"), m("critic", "hm")]},
        "parts everywhere": {
            "messages": [
                m(S, [{"type": "text", "text": "Sys "}, {"type": "text", "text": "two"}]),
                m(U, [{"type": "image", "image": "x.png"}, {"type": "text", "text": " What is this? "}, {"type": "image_url", "image_url": {"url": "y"}}]),
                m(A, [{"type": "text", "text": "A cat."}]),
                m(U, [{"type": "audio"}, {"type": "video"}, {"type": "text", "text": ""}]),
            ],
            "add_generation_prompt": True,
        },
        "only parts of other kinds": {"messages": [m(U, [{"type": "image"}])], "add_generation_prompt": True},
        "tool results in parts": {
            "messages": [
                m(U, "Look it up"),
                m(A, [{"type": "text", "text": "One moment."}], tool_calls=[call("noop", {})]),
                m(T, [{"type": "text", "text": "result"}, {"type": "text", "text": " two"}], name="noop", tool_call_id="call00001"),
            ],
            "tools": TOOLS,
            "add_generation_prompt": True,
        },
        "reasoning with tools": {
            "messages": [
                m(S, "Think."),
                m(U, "Weather in Paris and Rome?"),
                m(A, "", reasoning_content="I need both.\n", thinking="I need both.\n", tool_calls=[call("get_weather", {"city": "Paris"}), call("get_weather", {"city": "Rome", "tags": ["a", "b"]}, "call00002")]),
                m(T, "18", name="get_weather", tool_call_id="call00001"),
                m(T, '{"temp": 21.5, "ok": true}', name="get_weather", tool_call_id="call00002"),
                m(A, "18 and 21.5", reasoning_content="Now answer.", thinking="Now answer."),
                m(U, "And Oslo?"),
            ],
            "tools": TOOLS,
            "add_generation_prompt": True,
            "enable_thinking": True,
            "reasoning_effort": "low",
        },
        "call with text, then prompt": {
            "messages": [m(U, "Do it"), m(A, "Doing it now.", tool_calls=[call("noop", {"deep": {"list": [1, {"a": "b\n"}], "t": "é"}})])],
            "tools": TOOLS[1:],
        },
        "documents": {"messages": [m(U, "Summarize")], "documents": [{"title": "T", "text": "Body", "content": "Body", "doc_id": 1}], "add_generation_prompt": True},
        "empty everything": {"messages": [m(S, ""), m(U, ""), m(A, "", reasoning_content="", tool_calls=[]), m(U, " ")], "tools": [], "add_generation_prompt": True},
        "nothing said": {"messages": [m(U, None), m(A, None)]},
        "tool first": {"messages": [m(T, "x"), m(U, "y")]},
        "two systems": {"messages": [m(S, "a"), m(S, "b"), m(U, "c"), m(S, "late")], "add_generation_prompt": True},
        "assistant last": {"messages": [m(U, "x"), m(A, "y")], "add_generation_prompt": True},
    }.items()
}

FEATURES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama 2 style": "{% if messages and messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set sys = '<<SYS>>\n' ~ messages[0]['content'] ~ '\n<</SYS>>\n\n' %}{% else %}{% set rest = messages %}{% set sys = '' %}{% endif %}\n{%- for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate, got ' ~ m.role) }}{% endif %}{% if m.role == 'user' %}{{ bos_token ~ '[INST] ' ~ (sys if loop.first) ~ m.content|string|trim ~ ' [/INST]' }}{% else %}{{ ' ' + m.content|trim + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama 3 style": "{{- bos_token }}\n{%- for message in messages %}\n    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}\n    {%- if message.content is string %}\n        {{- message.content | trim }}\n    {%- elif message.content is iterable %}\n        {%- for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}\n    {%- endif %}\n    {{- '<|eot_id|>' }}\n{%- endfor %}\n{% if add_generation_prompt %}\n{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{% endif %}\n",
    "generation": "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
    "generation in macro": "{% macro turn(m) %}<{{ m.role }}>{% generation %}{{ m.content }}{% endgeneration %}{% endmacro %}{% for m in messages %}{{ turn(m) }}{% endfor %}",
    "white space": "  {% if true %}\n   a\n  {% endif %}\n b {%- if true %} c {% endif -%} d\n {#- x -#} e {# y #}\n  {%+ if true %}f{%+ endif +%}\n{% raw %} {{ raw }} {% {% endraw %}\n g {{- ' h ' -}} i\n\n",
    "numbers": "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1e16 }} {{ 1.5e-7 }} {{ 100.0 }} {{ 0.1 + 0.2 }} {{ 1_000 }} {{ 0x1f }} {{ -2 ** 2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 5 | float }} {{ '42.9' | int }} {{ 'x' | int(3) }} {{ 2.5 | round }} {{ 2.675 | round(2) }} {{ 10 | round(1, 'ceil') }} {{ 3.7 | int }} {{ -5 | abs }} {{ 1 == 1.0 }} {{ true + true }} {{ 3 > 2 > 1 }} {{ 1 < 2 > 3 }} {{ 12345678901234567.0 }} {{ 123456789012345.6 }}",
    "strings": "{{ 'a' 'b' }} {{ 'x\\ty\\u00e9\\x41\\101\\q' }} {{ \"it's\" }} {{ ['it\\'s', 'q\"', 'n\\n', 'é', '\\u200b', '\\x07'] }} {{ 'abc'[-1] }} {{ 'abc'[5] }} {{ 'añb'[1] }} {{ 'hello'[1:4] }} {{ 'hello'[::-1] }} {{ 'hello'[-3:] }} {{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a-b-c'.rsplit('-', 1) }} {{ 'a b c'.split(None, 1) }} {{ 'xxaxx'.strip('x') }} {{ 'ab'.startswith(('x', 'a')) }} {{ 'ab' * 3 }} {{ 'abc'.find('c') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'hello world'.title() }} {{ 'hELLO'.capitalize() }} {{ '%s is %d, %5.2f, %05d, %-4s|' % ('x', 3, 2.5, 42, 'é') }} {{ '{} {1} {k}'.format('p', 'q', k='z') if false else '' }}{{ '{} and {}'.format(1, 'b') }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '-'.join(['a', 'b']) }} {{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'ab'.upper() }} {{ 'a' < 'b' }} {{ 'b' in 'abc' }} {{ 'aaa'.count('a') }} {{ 'x'.isdigit() }} {{ ''.split(',') }} {{ ''.split() }}",
    "lists": "{% set l = [1, 2, 3, 4] %}{{ l[1:] }} {{ l[::-1] }} {{ l[-1] }} {{ l[9] is undefined }} {{ l + [5] }} {{ (1,) }} {{ () }} {{ (1, 'a') }} {{ [1, 2] == [1, 2] }} {{ [1] < [2] }} {{ 2 in l }} {{ l | length }} {{ l | first }} {{ l | last }} {{ l | sum }} {{ l | max }} {{ l | min }} {{ l | join(', ') }} {{ l | reverse | list }} {{ l | map('string') | list }} {{ l | select('odd') | list }} {{ l | reject('gt', 2) | list }} {{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true, reverse=true) }} {{ ['a', 'A', 'b'] | unique | list }} {{ l | batch(3, 'x') | list }} {{ range(3) | list }} {{ range(5, 0, -2) | list }} {{ l[1:3] * 2 }} {{ [[1, 2], [3]] | sum(start=[]) }} {{ l[:-1] }} {{ l[10:] }} {{ l[-10:2] }} {{ [none, true, 1.0] }} {{ l.index(3) }} {{ l.count(3) }} {{ [1, [2, (3, 4)], {'a': 'b'}] }}",
    "dicts": "{% set d = {'b': 1, 'A': [1, 2], 'c': {'x': none}} %}{{ d }} {{ d.b }} {{ d['A'][0] }} {{ d.zz is defined }} {{ d.get('zz') }} {{ d.get('zz', 5) }} {{ d | length }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.items() | list }} {{ d | dictsort }} {{ d | list }} {{ 'b' in d }} {% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {% for k, v in d | items %}{{ loop.index }}{{ k }}{% endfor %} {% for k in d %}{{ k }}{% endfor %} {{ d.c.x is none }} {{ dict(a=1, b=2) }} {{ {1: 'x', (1, 2): 'y', none: 'z'} }} {{ d.copy() == d }} {{ {} or 'empty' }} {{ {'items': 3}['items'] }} {{ d | dictsort(reverse=true) | map('first') | list }} {{ d | dictsort(true) }}",
    "tojson": "{{ {'a': [1, 2.0, none, true], 'b': 'é<>&\\'\"\\\\\\n\\u2028\\x01'} | tojson }} {{ [] | tojson }} {{ {} | tojson(indent=2) }} {{ {'a': [], 'b': {}, 'c': [1, {'d': 2}]} | tojson(indent=4) }} {{ 'é😀\\x7f' | tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }} {{ [1, 2] | tojson(indent='\\t') }} {{ 1e100 | tojson }} {{ (1, 2) | tojson }} {{ {1: 2, true: 3, none: 4, 1.5: 5} | tojson }} {{ messages | tojson }} {{ tools | tojson(indent=2) }}",
    "undefined": "{{ nope }}|{{ nope is defined }}|{{ none }}|{{ nope | default('d') }}|{{ '' | default('e', true) }}|{{ none | default('f') }}|{{ messages.nope }}|{{ nope | length }}|{{ nope == none }}|{{ 'x' if false }}|{{ ('x' if false) is undefined }}|{{ 'x' in nope }}|{% for x in nope %}{{ x }}{% else %}none{% endfor %}|{{ nope is iterable }}|{{ nope is sequence }}|{{ nope | string }}|{{ [nope] }}|{{ none.x is undefined }}|{{ not nope }}|{{ nope | list }}|{{ nope | join }}",
    "loops": "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem.role if loop.previtem is defined }}{{ loop.nextitem.role if loop.nextitem is defined }}{{ loop.cycle('a', 'b') }}{{ loop.changed(m.role) }}{% if loop.index == 3 %}{% continue %}{% endif %}{% if loop.index > 4 %}{% break %}{% endif %};{% else %}nothing{% endfor %}{% for x in range(6) if x % 2 %}{{ x }}/{{ loop.length }} {% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for x in [[1, [2, [3]]]] recursive %}{% if x is iterable %}{{ loop.depth }}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
    "scopes": "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}{% set ns = namespace(n=0, l=[]) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{{ ns.zz is defined }}{% if true %}{% set y = 5 %}{% endif %}{{ y }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set blk %}<{{ x }}>{% set inner = 1 %}{% endset %}{{ blk }}{{ inner is defined }}{% set up | upper %}abc{% endset %}{{ up }}{% with q = 3, r = x %}{{ q }}{{ r }}{% endwith %}{{ q is defined }}{% filter upper | replace('B', '-') %}abc{% endfilter %}",
    "macros": "{% macro f(a, b=2, c=a) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, c=3) }}{{ f(b=5, a=4) }}{{ f() }}{% macro g(n) %}{{ n }}{% if n %}{{ g(n - 1) }}{% endif %}{% endmacro %}{{ g(5) }}{{ f(*[7, 8]) }}{{ f(**{'a': 9}) }}{% macro late() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ late() }}{% macro wrap() %}<{{ caller('z') }}>{% endmacro %}{% call(v) wrap() %}in {{ v }}{% endcall %}{{ f(1) | length }}{% for i in [1, 2] %}{% macro h() %}{{ i }}{% endmacro %}{{ h() }}{% endfor %}",
    "conditions": "{{ 1 if messages else 2 }}{{ 'a' if false else 'b' if false else 'c' }}{{ true and 'x' or 'y' }}{{ none or 0 }}{{ not true }}{{ not 1 in [1] }}{{ 1 not in [1] }}{{ 5 is divisibleby 5 }}{{ 3 is odd }}{{ 'a' is in ['a'] }}{{ 1 is not none }}{{ 'a' is string and 1 is number }}{{ true is boolean }}{{ true is number }}{{ true is integer }}{{ 1.0 is float }}{{ 1 is integer }}{{ [] is sequence }}{{ {} is mapping }}{{ {} is iterable }}{{ 'x' is sequence }}{{ 1 is iterable }}{{ 'A' is upper }}{{ 'a' is lower }}{{ 1 is sameas true }}{{ 1 is eq 1 }}{{ 2 is gt(1) }}{{ false is false }}{{ 0 is false }}{{ range is callable }}{{ [1] | map('string') is sequence }}{{ (1, 2) is sequence }}",
    "filters": "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }} {{ messages | rejectattr('role', 'in', ['system', 'user']) | list | length }} {{ messages | map(attribute='nope', default='-') | join(',') }} {{ messages | groupby('role') | list | length if false }} {{ 'a\\nb\\n\\nc' | indent(2) }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent('>', blank=true) }}|{{ '  x ' | trim }}|{{ 'xyx' | trim('x') }}|{{ 'abc' | replace('b', 'B') }}|{{ 'abc' | reverse }}|{{ 'a b  c' | wordcount }}|{{ '<a & \"b\">' | e }}|{{ 'hello wORLD-x' | title }}|{{ 'ABC' | lower | capitalize }}|{{ '%s-%s' | format('a', 1) }}|{{ [{'a': {'b': 2}}, {'a': {'b': 1}}] | sort(attribute='a.b') }}|{{ [{'k': 'x'}] | map(attribute='k') | first }}|{{ {'a': 1} | items | list }}|{{ ['a', 'b'] | join }}|{{ 'abc' | list }}|{{ 'abc' | first }}|{{ [] | first is undefined }}|{{ 3 | string ~ 'x' }}|{{ strftime_now('%Y-%m-%d %d %B') }}",
    "precedence": "{{ 1 + 2 * 3 ** 2 }} {{ 'a' ~ 1 + 2 }} {{ -1 | abs }} {{ 2 - -1 }} {{ (1, 2)[0] }} {{ [1, 2, 3][1:] | length }} {{ 'a,b' . split(',') }} {{ not false and false }} {{ 1 == 1 and 2 == 2 }} {{ 'x' ~ 'y' | upper }} {{ {'a': {'b': [10]}}.a.b[0] }} {{ [[1]][0].0 }} {{ 10 / 2 * 5 }} {{ 10 - 2 - 3 }} {{ 1 if 0 else 2 if 0 else 3 }} {{ 'a' in 'abc' == true }}",
}
