"""Chat templates that would take all the time or memory there is; run as a program, it tries them.

As a program it limits its own address space and CPU time, renders every attack and prints, as JSON,
what became of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MESSAGES = [{"role": "user", "content": "hi"}]
MEMORY = 256 * 2**20  # above what the imports take
CPU_SECONDS = 60  # for all of them: only a hang comes near

NESTED = (
    "{% set ns = namespace(x=[1], y=[1], t=(1,)) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% set ns.t = (ns.t, ns.t) %}"
    "{% endfor %}"
)
DEEP = (
    "{% set ns = namespace(t=(1,)) %}{% for i in range(5000) %}{% set ns.t = (ns.t,) %}{% endfor %}"
)
LONG = "{% set a = 'a' * 200000 %}"
TIMES_60 = "{% for i in range(60) %}"
MACROS = "{% macro f0() %}{% endmacro %}" + "".join(
    f"{{% macro f{n}() %}}{{% set x = f{n - 1}() %}}{{% set x = f{n - 1}() %}}{{% endmacro %}}"
    for n in range(1, 18)
)
WORK, WIDTH, DEPTH = "more work than allowed", "width from a value", "levels deep"

# What a template does, and the reason for which it is refused.
ATTACKS = {
    # numbers that say how large a text becomes
    "{{ 'x' | center(10**9) }}": "No filter named 'center'",
    "{{ 'x'.center(10**9) }}": "may not call center",
    "{{ 'x'['ljust'](10**9) }}": "may not call ljust",
    "{{ 'x'.zfill(10**9) }}": "may not call zfill",
    "{{ '\t'.expandtabs(10**9) }}": "may not call expandtabs",
    "{{ [1] | batch(10**9, 'x') | list }}": "No filter named 'batch'",
    "{{ 5 | round(-10**9) }}": "No filter named 'round'",
    "{{ lipsum(10**9) }}": "'lipsum' is undefined",
    "{{ '%1000000000d' | format(1) }}": WORK,
    "{{ '%999999999d' % 1 }}": WORK,
    "{{ '%(a)999999999d' % {'a': 1} }}": WORK,
    "{{ '%*d' % (10**9, 1) }}": WIDTH,
    "{{ '%-+*d' | format(10**9, 1) }}": WIDTH,
    "{{ '%.*f' % (10**9, 1) }}": WIDTH,
    "{{ '{:>999999999}'.format(1) }}": WORK,
    "{{ '{:.999999999f}'.format(1) }}": WORK,
    "{{ '{:>{}}'.format(1, 10**9) }}": WIDTH,
    "{{ '{{{:>{}}}}'.format(1, 10**9) }}": WIDTH,
    "{{ '{a:>999999999}'.format_map({'a': 1}) }}": WORK,
    "{{ ('{0}' * 20000).format('x' * 20000) }}": WORK,
    "{{ ['x'] | map('format', '%999999999d') | list }}": "not all arguments",
    "{{ ['%999999999d'] | map('format', 1) | list }}": WORK,
    "{{ ('x\n' * 10000) | indent(10**6) }}": WORK,
    "{{ ('x\n' * 10000) | indent(blank=true, width='y' * 100000) }}": WORK,
    "{{ [1, [2]] | tojson(indent=10**9) }}": "tojson indents by",
    "{{ [1, [2]] | tojson(indent='x' * 1000000) }}": "tojson indents by",
    "{{ strftime_now('%1000000000Y') }}": "strftime_now has the format",
    "{{ strftime_now('%Y' * 1000) }}": "strftime_now has the format",
    # arithmetic
    "{{ 'x' * 10**10 }}": WORK,
    "{{ 10**10 * [1] }}": WORK,
    "{{ 9**(9**9) }}": "a power is longer",
    "{{ 10**-(9**9) * 2**(9**9) }}": "a power is longer",
    "{% set n = namespace(x=9) %}" + TIMES_60 + "{% set n.x = n.x * n.x %}{% endfor %}": WORK,
    "{% set a = ('1' * 400000) | int(base=2) %}" + "{% set b = a // (a // 2**2000) %}" * 99: WORK,
    # doubling
    "{% set n = namespace(x='x') %}" + TIMES_60 + "{% set n.x = n.x ~ n.x %}{% endfor %}": WORK,
    "{% set n = namespace(x='x') %}" + TIMES_60 + "{% set n.x = n.x + n.x %}{% endfor %}": WORK,
    "{% set n = namespace(x=[1]) %}" + TIMES_60 + "{% set n.x = n.x + n.x %}{% endfor %}": WORK,
    "{% set x = 'x' %}" + "{% set x = x ~ x %}" * 60: WORK,
    "{% set x = 'x' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60: WORK,
    "{% set x = 'x' %}" + "{% set x = [x, x] | join %}" * 60: WORK,
    "{% set x = 'x' %}" + "{% set x = '%s%s' % (x, x) %}" * 60: WORK,
    "{% set x = 'x' %}" + "{% set x = '{0}{0}'.format(x) %}" * 60: WORK,
    "{{ ('x' * 100000) | replace('x', 'x' * 100000) }}": WORK,
    "{{ ('x' * 100000) | replace(new='x' * 100000, old='x') }}": WORK,
    "{{ ('x' * 100000).replace('x', 'x' * 100000) }}": WORK,
    "{{ range(9999) | join('x' * 100000) }}": WORK,
    "{{ ('x' * 100000).join('x' * 100000) }}": WORK,
    "{{ " + "~".join(["('x' * 100000)"] * 3000) + " }}": WORK,
    # small values that are large when printed, compared or hashed
    NESTED + "{{ ns.x }}": WORK,
    NESTED + "{{ ns.x ~ '' }}": WORK,
    NESTED + "{{ ns.x | string }}": WORK,
    NESTED + "{{ ns.x | tojson }}": WORK,
    NESTED + "{{ '%s' % (ns.x,) }}": WORK,
    NESTED + "{{ '{}'.format(ns.x) }}": WORK,
    NESTED + "{{ [ns.x] | join }}": WORK,
    NESTED + "{{ ns.x == ns.y }}": WORK,
    NESTED + "{{ ns.x is eq(ns.y) }}": WORK,
    NESTED + "{{ [ns.x] | select('eq', ns.y) }}": WORK,
    NESTED + "{{ ns.x in [ns.y] }}": WORK,
    NESTED + "{{ [ns.x, ns.y] | sort }}": WORK,
    NESTED + "{{ [ns.x].index(ns.y) }}": WORK,
    NESTED + "{{ {ns.t: 1} }}": WORK,
    NESTED + "{{ {}[ns.t] }}": WORK,
    NESTED + "{{ {}.get(ns.t) }}": WORK,
    NESTED + "{{ [ns.t] | unique }}": WORK,
    NESTED + "{{ dict([[ns.t, 1]]) }}": WORK,
    NESTED + "{% for i in [1, 2] %}{{ loop.changed(ns.x[:]) }}{% endfor %}": WORK,
    # nesting that overflows the C stack when hashed
    DEEP + "{{ {ns.t: 1} }}": DEPTH,
    DEEP + "{{ {}[ns.t] }}": DEPTH,
    DEEP + "{{ [ns.t] | unique }}": DEPTH,
    DEEP + "{{ ns.t in {} }}": DEPTH,
    # loops
    "{% for i in range(10**12) %}{% endfor %}": WORK,
    "{{ range(10**12) | list }}": WORK,
    "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}": WORK,
    "{% set r = range(2000) | list %}"
    "{% for i in r %}{% for j in r if false %}{% endfor %}{% endfor %}": WORK,
    "{% for i in range(9999) %}" + "x" * 60000 + "{% endfor %}": "prints more",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "recursion",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(99) }}": WORK,
    MACROS + "{% set x = f17() %}": WORK,
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}": "may not call BlockReference",
    "{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}": "recursion",
    "{% set x = range(99999) | list %}" + "{% set y = x[1:] %}" * 200: WORK,
    "{% set x = range(99999) | list %}" + "{% set y = x | list %}" * 2000: WORK,
    "{% set x = range(9999) | list %}" + "{% set y = x | map('string') %}" * 1000: WORK,
    "{{ range(9999) | map(attribute='a' ~ '.a' * 10000) | list }}": WORK,
    # searches that Python does in quadratic time
    LONG + "{{ a.rfind('b' ~ a[:100000]) }}": WORK,
    LONG + "{{ a.rsplit(maxsplit=1, sep='b' ~ a[:100000]) }}": WORK,
    LONG + "{{ a.strip('b' * 100000 ~ 'a') }}": WORK,
    LONG + "{{ a | trim('b' * 100000 ~ 'a') }}": WORK,
    LONG + "{% for i in range(99) %}{% if 'b' in a %}{% endif %}{% endfor %}": WORK,
    "{{ ('%' ~ '0' * 500000) % 1 }}": "integer string conversion",
    # what takes long to compile
    "{{a}}" * 13000: "more than 10000 parts",
    "{% if a %}" + "{% elif b %}" * 5000 + "{% endif %}": "more than 10000 parts",
    "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}": "recursion",
    "{{ a" + ".a" * 30000 + " }}": "recursion",
    "{% for a in b %}" * 400 + "{% endfor %}" * 400: "recursion",
    # constants that Jinja would work out while it compiles
    "{{ ['x' | replace('x', 'y')] | join('x' * 9) ~ ('a' * 10**9) }}": WORK,
    "{{ '%999999999d' | format(1) | length }}": WORK,
}


def main() -> None:
    import resource  # not on every system

    from mobilemoe.checkpoint import ChatFormat
    from mobilemoe.errors import MobileMoEError

    ChatFormat("x", "").render(MESSAGES)  # imports
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    results = []
    for template in ATTACKS:
        try:
            results.append("rendered " + ChatFormat(template, "").render(MESSAGES)[:60])
        except MobileMoEError as error:
            results.append(error.message)
        except MemoryError:
            results.append("MemoryError")
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
