"""The language in small: templates of which make_templates.py notes what jinja2 makes of them, or
that it refuses them. Parted by what they are about; a snippet sees VARIABLES."""

VARIABLES = {
    "messages": [{"role": "user", "content": "Hi there", "n": 3},
                 {"role": "assistant", "content": "Hello!", "n": 1},
                 {"role": "user", "content": "äö <b> & 'q'", "n": 2}],
    "s": "Hello, World", "u": "Größe ǆ ﬁ ΟΔΟΣ 日本語 🎉", "e": "", "ws": "  \t a b \n\n c  ",
    "n": 7, "neg": -7, "z": 0, "x": 2.5, "big": 9007199254740993, "t": True, "f": False,
    "none_value": None, "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "empty": [], "nested":
    [[1, 2], [3, [4, None]], {"k": [True, "v"]}], "d": {"b": 1, "a": "two", "c": [1.0, None]},
    "ed": {}, "items": "a variable", "rows": [{"k": "x", "v": 1, "o": {"p": "q"}},
                                              {"k": "Y", "v": 3, "o": {"p": "r"}},
                                              {"k": "x", "v": 2, "o": {"p": "s"}}],
    "shadow": {"items": "member", "get": 1, "keys": 2, "x-y": 5, "1": "one"}, "quote": "it's \"so\"",
    "ctrl": "a\x00b\x1fc\x7fd\u00a0e\u200bf\\",
}

PRINTING = r"""
{{ 1 }} {{ -1 }} {{ 1.0 }} {{ 0.1 }} {{ 1e3 }} {{ 1e16 }} {{ 1e15 }} {{ 123456789012345680.0 }}
{{ 1e-4 }} {{ 1e-5 }} {{ 1.5e-7 }} {{ 2.5 }} {{ 1e22 }} {{ 1e100 }} {{ 5e-324 }} {{ 0.30000000000000004 }}
{{ 1/3 }} {{ 2/3 }} {{ 100/7 }} {{ 1e300*1e10 }} {{ -1e300*1e10 }} {{ 0.0 }} {{ -0.0 }} {{ 1.7976931348623157e308 }}
{{ true }} {{ false }} {{ none }} {{ True }} {{ False }} {{ None }} {{ missing }}|
{{ [] }} {{ [1] }} {{ [1, 'a', none, true, 1.5] }} {{ () }} {{ (1,) }} {{ (1, 2) }} {{ {} }} {{ {'a': 1} }}
{{ {'a': [1, {'b': (1,)}], 2: none, none: 3, true: 4, 1.5: 5} }}
{{ ['it\'s', "say \"x\"", 'both \' and "', 'new\nline', 'tab\t', 'back\\slash', 'é', '\x00', '\x7f', '\u200b', '\U0001f389', '\xa0'] }}
{{ [missing] }} {{ {'a': missing} }} {{ d }} {{ nested }} {{ u }} {{ [u] }} {{ [quote] }} {{ [ctrl] }}
{{ d.keys() }} {{ d.values() }} {{ d.items() }} {{ range(3) }} {{ range(1, 9, 2) }} {{ big }} {{ [x, neg] }}
{{ namespace(a=1, b='c') }} {{ [namespace()] }} {{ (1, (2, [3])) }} {{ 'a' 'b' "c" }} {{ 1, 2 }} {{ 1, }}
"""

LEXING = r"""
{{ 'a\nb' }}|{{ 'a\tb' }}|{{ '\x41\u00e9\U0001F600\101\7' }}|{{ '\q\é' }}|{{ 'a\
b' }}
{{ "\"" }}{{ '\'' }}{{ '\\' }}{{ "\a\b\f\v\r"|tojson }}
{{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_000 }} {{ 1_0.0_1 }} {{ 1e5 }} {{ 1E+2 }} {{ 1.5e-2 }} {{ 00 }} {{ 0xFF_FF }}
{{ '{{' }} {{ '}}' }} {{ '{%' }} {{ "%}" }} {{ {'a': {'b': 1}} }} {{ {'a': {'b': 1}}['a']['b'] }} {{{'a': 1}}}
{{ 1 }}{# comment #}{{ 2 }}{#- trimmed -#}  {{ 3 }}  {#+ kept +#}  x
{% raw %}{{ not }} {% if %}{% endraw %}|{% raw -%}   {{ a }}   {%- endraw %} |
{{ "}}" ~ '%}' }}{# {{ }} #}|{{- ' a ' -}}|  {{- 1 -}}  |{{ 2 }} {{ 3 -}} 4
{% if true %}yes{% endif %}{% if true -%}  yes  {%- endif %}|{%- if true %} a {% endif -%} b
a.b.c {{ d.a }} {{ d['a'] }} {{ l.0 }} {{ l[1] }} {{ nested.0.1 }} {{ nested[1].1.0 }} {{ l.-1 }}
{{ 1 if true }}|{{ 1 if false }}|{{ 1 if false else 2 }}|{{ 1 if none else 2 if e else 3 }}
{{ 'unterminated }}
{{ 1 + }}
{{ (1 }}
{{ 1) }}
{{ [1}}
{% if %}x{% endif %}
{% if true %}x
{% endif %}
{% unknown %}
{% for %}x{% endfor %}
{{ $ }}
{{ 1 ! 2 }}
{# never ends
{% raw %} never ends
{{ '\u12' }}
{{ a b }}
{{ 08 }}
{{ 1 is }}
{{ x | }}
{{ x|nofilter }}
{{ x is notest }}
{% if false %}{{ x|nofilter }}{{ x is notest }}{% endif %}ok
{{ (x|nofilter) if false else 'ok' }}
{% if false %}{% for i in l %}{{ x|nofilter }}{% endfor %}{% endif %}
{% if true %}{{ x|nofilter }}{% endif %}
{% else %}
{% if a %}{% else %}{% elif b %}{% endif %}
{{ foo(a=1, a=2) }}
{{ foo(a=1, 2) }}
{{ foo(*[1], 2) }}
{{ foo(**{}, *[]) }}
{{ [1,,2] }}
{{ [1,2,] }}{{ {'a':1,} }}{{ (1,2,) }}
{{ {1} }}
{{ x.1.5 }}
{{ x. }}
{{ l[1:2, 3] }}
{{ ;}}
{{ a = 1 }}
{{ 'a'.'b' }}
{% set %}
{% set 1 = 2 %}
{% set a.b = 2 %}
{% set none = 2 %}
{% for loop in l %}{% endfor %}
{% for a in l %}{% set loop = 1 %}{% endfor %}
{% break %}
{% for a in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% macro m(a, a) %}{% endmacro %}
{% macro m(a=1, b) %}{% endmacro %}
{% macro m() %}
{% call m %}{% endcall %}
{% filter %}{% endfilter %}
{% endfor %}
{% set x %}a
{{ 99999999999999999999.5 }}
{% print 1, 'a', none %}|{% print %}|
{{ not }}|{{ and }}|
"""

# Whitespace around tags; each is one template with its newlines.
WHITESPACE = [
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}  \n  b\n  {% endif %}  \nc\n\n",
    "a\n  {%- if true -%}\n  b\n  {%- endif -%}\nc",
    "a\n  {%+ if true +%}\n  b\n  {%+ endif +%}\nc",
    "  {% if true %}x{% endif %}\n\t{% if true %}y{% endif %}",
    "{% for i in [1,2] %}\n{{ i }}\n{% endfor %}\nend",
    "{% for i in [1,2] -%}\n  {{ i }}\n{%- endfor %}\n",
    "x {# c #} y\n {# c #}\n z\n", "x\n   {#- c -#}   \n y", "{# a #}\n\n{# b #}\nc",
    "{{ 1 }}\n{{ 2 }}\n\n", "\n\n{{ 1 }}", "{{ 1 }}\r\n{{ 2 }}\r{{ 3 }}\r\n",
    "  {{ 1 }}  \n  {{- 2 }}\n {{ 3 -}} \n x", "a{% if true %}\n\n{% endif %}b",
    "a \u00a0{%- if true %} b{% endif %}", "\u00a0{% if true %}x{% endif %}",
    "{% raw %}\n a {% endraw %}\nb", "  {% raw %} a\n  {%- endraw -%}  \n b",
    "  {% raw -%}\n\n a\n  {% endraw +%}\n b",
    "{% set a = 1 %}\n{% set b = 2 %}\n\n{{ a }}{{ b }}\n", "a\n{%\nif true\n%}\nb{% endif %}",
    "{{\n1\n}}\n{{ 'a\nb' }}", "\ta\n\t{% if true %}\t\n\tb\n\t{% endif %}", "{%- raw -%} x {%- endraw -%}",
    "{% if true %}{% endif %}\n{% if true %}{% endif %}\n", " ", "\n", "\n\n", "", "no tags\nat all\n",
    "{%- for m in messages -%}\n{{ m.role }}\n{%- if not loop.last %}\n, \n{%- endif %}\n{%- endfor -%}\n",
    "a   {{- ''}}  b", "a {%- set q = 1 %}  b", "{{ 1 -}}\n\n\n{{- 2 }}", "{{ 1 }}{%+ if true %}\nb{% endif %}",
    "   {%+ if true %}b{% endif %}", "{#- a #}\n b {#+ c #}", "{{+ 1 }}|{{+1}}",
]

OPERATORS = r"""
{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 6 / 2 }}
{{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2.0 ** 3 }} {{ 4 ** 0.5 }} {{ 0 ** 0 }}
{{ 7.5 // 2 }} {{ -7.5 // 2 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }} {{ 1.0 // 0.1 }} {{ 6.0 % 0.7 }}
{{ 1 + 1.5 }} {{ true + 1 }} {{ true + true }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'a' * 3 }} {{ 3 * 'a' }}
{{ [1, 2] * 2 }} {{ 'a' * 0 }} {{ 'a' * -1 }} {{ 'a' * true }} {{ 1 ~ 2 }} {{ 'a' ~ none ~ 1.0 ~ [1] ~ missing ~ true }}
{{ 1 ~ 2 + 3 }} {{ 1 + 2 ~ 3 }} {{ 2 * 3 ~ 4 }} {{ 1 - 1 ~ 1 }} {{ '1' ~ 2 * 3 }}
{{ +1 }} {{ - 1 }} {{ -true }} {{ --1 }} {{ -x }} {{ +x }} {{ -x|abs }} {{ -n ** 2 }}
{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 > 1 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ 1 != 2 }} {{ 'a' < 'b' }} {{ 'a' < 'B' }}
{{ [1, 2] < [1, 3] }} {{ [1] < [1, 0] }} {{ (1, 'a') < (1, 'b') }} {{ [1] == (1,) }} {{ {'a': 1} == {'a': 1.0} }} {{ 'é' > 'z' }}
{{ none == none }} {{ none == false }} {{ missing == missing }} {{ missing == none }} {{ missing != none }} {{ '' == missing }}
{{ 2 <= 2 }} {{ 2 >= 3 }} {{ 1 <= 2 >= 2 }} {{ big == 9007199254740992.0 }} {{ big > 9007199254740992.0 }} {{ 1 < 1.5 }}
{{ 'a' in 'abc' }} {{ '' in 'abc' }} {{ 'd' not in 'abc' }} {{ 1 in l }} {{ 5 not in l }} {{ 'a' in d }} {{ 1 in d }} {{ 'two' in d.values() }}
{{ 2 in range(5) }} {{ 3 in range(0, 9, 2) }} {{ 1.0 in l }} {{ 'x' in missing }} {{ missing in [missing] }} {{ none in [none] }} {{ ('a', 'two') in d.items() }}
{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ 1 or 2 }} {{ '' or [] }} {{ not 1 }} {{ not '' }} {{ not not 1 }} {{ not [] }} {{ not {} }}
{{ 1 and not 0 }} {{ not 1 == 2 }} {{ 1 or 0 and 0 }} {{ (1 or 0) and 0 }} {{ true and none }} {{ missing or 'd' }} {{ missing and 1 }}|
{{ not 1 in [2] }} {{ 1 not in [2] and true }} {{ 1 in [1] in [[1]] }} {{ 1 if 1 and 0 else 2 }} {{ not missing }}
{{ 'a' if s == 'Hello, World' and n > 5 else 'b' }} {{ n > 5 and s or 'no' }} {{ (n > 5) ~ '' }}
{{ 5 if x else 6 }} {{ [1 if t else 2, 3] }} {{ {'a': 1 if f else 2} }} {{ (1 if t else 2) + 1 }}
{{ 9223372036854775807 }} {{ -9223372036854775807 }} {{ 9223372036854775807 // -1 }} {{ 4611686018427387904 * 2 - 1 if false else 'x' }}
{{ 1 / 0 }}
{{ 1 // 0 }}
{{ 1 % 0 }}
{{ 1.0 / 0 }}
{{ 0 ** -1 }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ [1] + (2,) }}
{{ none + 1 }}
{{ {} + {} }}
{{ 'a' - 'b' }}
{{ 'a' * 'b' }}
{{ 'a' * 1.5 }}
{{ -'a' }}
{{ 1 < 'a' }}
{{ none < none }}
{{ [1] < ['a'] }}
{{ {} < {} }}
{{ 1 in 1 }}
{{ 1 in 'abc' }}
{{ [] in d }}
{{ missing + 1 }}
{{ 1 + missing }}
{{ 'a' + missing }}
{{ missing < 1 }}
{{ -missing }}
{{ missing.a }}
{{ missing['a'] }}
{{ missing() }}
{{ missing[1:] }}
{{ missing.a.b is defined }}
{{ 2.5 ** 1000 }}
{{ n() }}
{{ s() }}
{{ {[]: 1} }}
"""

LOOKUPS = r"""
{{ s[0] }} {{ s[-1] }} {{ s[1:3] }} {{ s[:5] }} {{ s[-5:] }} {{ s[::-1] }} {{ s[::2] }} {{ s[5:2] }}| {{ s[5:2:-1] }} {{ s[:] }} {{ s[100:] }}| {{ s[-100:3] }} {{ s[:-1:3] }} {{ s[99] }}| {{ s[-99] }}|
{{ u[0] }} {{ u[2] }} {{ u[-1] }} {{ u[2:7] }} {{ u[::-1] }} {{ u[::3] }} {{ u[-3:] }} {{ u[10:2:-2] }} {{ u[:-8] }}
{{ l[0] }} {{ l[-1] }} {{ l[1:] }} {{ l[::-1] }} {{ l[5] }}| {{ l['a'] }}| {{ l[true] }} {{ l[1.0] }}| {{ l[none] }}| {{ l[:2][1] }} {{ (1,2,3)[1:] }} {{ range(10)[2:8:2] }} {{ range(10)[3] }} {{ range(10)[::-1] }} {{ range(5)[-1] }}
{{ d.a }} {{ d['a'] }} {{ d.zzz }}| {{ d['zzz'] }}| {{ d.c[0] }} {{ d.get('a') }} {{ d.get('zz') }} {{ d.get('zz', 5) }} {{ d.get('a', 5) }} {{ ed.get('x', {}).get('y', 'deep') }}
{{ '' if shadow.items is defined }} {{ shadow['items'] }} {{ shadow['get'] }} {{ shadow['x-y'] }} {{ shadow['1'] }} {{ shadow.x }}| {{ shadow[1] }}|
{{ d['keys']() }} {{ d['items']() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.items() | list }} {{ d.items() | length }} {{ d.copy() }}
{{ {1: 'int', 'a': 'str'}[1] }} {{ {1: 'int'}[1.0] }} {{ {1: 'int'}[true] }} {{ {(1, 2): 'tuple'}[(1, 2)] }} {{ {'a': 1, 'a': 2, 'b': 3} }} {{ {none: 1}[none] }} {{ d[[1]] }}| {{ {1.5: 'f'}[1.5] }}
{{ messages[0].content }} {{ messages[-1]['role'] }} {{ messages[0]['content'][0] }} {{ messages[:1][0].n }} {{ messages | length }} {{ (messages | last).role }} {{ (messages | first)['n'] }}
{{ s.__class__ }}| {{ s.__class__ is defined }} {{ d.__class__ }}| {{ l.append }}| {{ l.append is defined }} {{ d.pop is defined }} {{ d._private is defined }} {{ s['__len__'] }}|
{{ s.nothing }}| {{ s.nothing is defined }} {{ n.nothing }}| {{ none_value.nothing }}| {{ none.x is defined }} {{ (none_value or {}).get('a', 'dflt') }} {{ true.x }}|
{{ l.index(1) }} {{ l.count(3) }} {{ (1, 2, 2).count(2) }} {{ (1, 2).index(2) }} {{ l.copy() }} {{ range(5).index(3) }} {{ l.index(2, 1) }}
{{ l.append(1) }}
{{ d.update({}) }}
{{ d.pop('a') }}
{{ l.index(99) }}
{{ l.index(1, 2) }}
{{ s.__class__.__mro__ }}
{{ s.__class__() }}
{{ ''.__class__.__base__.__subclasses__() }}
{{ messages.__init__.__globals__ }}
{{ d.get() }}
{{ d.get(key='a') }}
{{ d.get([]) }}
{{ s[::0] }}
{{ s['a':] }}
{{ d[1:] }}
{{ n[0] }}|
{{ n[0].x }}
{{ none_value[1:] }}
{{ s.upper(1) }}
{{ s.nothing() }}
{{ s.encode() }}{{ 1/0 }}
{{ 2.0.is_integer() }} {{ x.is_integer() }}
{{ dict.fromkeys(['a', 'b']) }} {{ dict.fromkeys('ab', 1) }} {{ dict(a=1, b=2) }} {{ dict({'a': 1}, b=2) }} {{ dict([('a', 1), ['b', 2]]) }} {{ dict() }} {{ dict(a=1).a }}
{{ dict([1]) }}
{{ dict(1) }}
"""

METHODS = r"""
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ s.swapcase() }} {{ 'hello WORLD'.capitalize() }} {{ u.upper() }} {{ u.lower() }} {{ u.title() }} {{ u.casefold() }} {{ u.swapcase() }} {{ 'ß ŉ ǰ'.upper() }} {{ 'ﬁn ǆ'.title() }} {{ 'İI'.lower() }} {{ "they're bill's".title() }} {{ 'ὈΔΥΣΣΕΎΣ Σ ΑΣ.'.lower() }}
[{{ ws.strip() }}] [{{ ws.lstrip() }}] [{{ ws.rstrip() }}] [{{ 'xxaxx'.strip('x') }}] [{{ 'abcab'.strip('ab') }}] [{{ 'xaax'.lstrip('xa') }}] [{{ 'a\n\n'.rstrip('\n') }}] [{{ '\u00a0\u3000a\u2003'.strip() }}] [{{ 'éaé'.strip('é') }}] [{{ ' a '.strip(none) }}] [{{ 'a'.strip('') }}]
{{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ws.split() }} {{ ' a  b c '.split(none, 1) }} {{ ' a  b c '.split(maxsplit=1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a--b--c'.split('--')[-1] }} {{ 'abc'.split('x') }} {{ 'a b'.split(sep=' ') }} {{ ',a,'.split(',') }} {{ 'x</think>y</think>z'.split('</think>')[-1] }} {{ 'a,b,c'.split(',', 0) }} {{ 'a b c'.split(' ', -1) }}
{{ 'a,b,,c'.rsplit(',', 1) }} {{ 'a b  c '.rsplit() }} {{ ' a b  c '.rsplit(none, 1) }} {{ 'a,b'.rsplit(',') }} {{ 'aXXXb'.rsplit('XX', 1) }} {{ 'aXXXb'.split('XX', 1) }} {{ ' a b c '.rsplit(none, 0) }} {{ ' a b c '.split(none, 0) }}
{{ 'a\nb\r\nc\rd\n'.splitlines() }} {{ 'a\nb\n'.splitlines(true) }} {{ 'a\x0bb\x0cc\x1cd\x85e\u2028f'.splitlines() }} {{ ''.splitlines() }} {{ '\n'.splitlines() }} {{ '\r\n\n'.splitlines(keepends=true) }}
{{ s.startswith('Hello') }} {{ s.startswith('x') }} {{ s.startswith(('x', 'H')) }} {{ s.endswith('World') }} {{ s.endswith(('a', 'b')) }} {{ s.startswith('World', 7) }} {{ s.endswith('Hello', 0, 5) }} {{ s.startswith('') }} {{ s.startswith('', 99) }} {{ s.startswith(()) }} {{ e.startswith('') }} {{ s.endswith('d', -1) }}
{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }} {{ s.replace('', '-') }} {{ s.replace('', '-', 3) }} {{ s.replace('x', 'y') }} {{ 'aaa'.replace('aa', 'b') }} {{ 'é'.replace('', 'x') }} {{ s.replace('o', '') }} {{ ''.replace('', 'a') }} {{ s.replace('l', 'L', 0) }} {{ s.replace('l', 'L', -1) }}
{{ s.find('o') }} {{ s.find('o', 5) }} {{ s.find('zz') }} {{ s.rfind('o') }} {{ s.index('W') }} {{ s.rindex('o') }} {{ s.count('l') }} {{ s.count('') }} {{ u.find('日') }} {{ u.find('🎉') }} {{ s.find('') }} {{ s.rfind('') }} {{ s.find('o', -3) }} {{ s.count('o', 5) }} {{ 'aaaa'.count('aa') }} {{ s.find('l', 3, 4) }} {{ s.find('', 99) }} {{ u.rfind('Ο') }} {{ u.count('') }} {{ s.rfind('o', 0, 6) }}
{{ ', '.join(['a', 'b']) }} {{ ''.join('abc') }} {{ '-'.join([]) }}| {{ ','.join(d) }} {{ ' '.join(messages | map(attribute='role')) }} {{ '/'.join(('x',)) }}
{{ 'abc'.removeprefix('a') }} {{ 'abc'.removeprefix('x') }} {{ 'abc'.removesuffix('bc') }} {{ 'abc'.removesuffix('') }} {{ 'a.b.c'.partition('.') }} {{ 'abc'.partition('.') }} {{ 'a.b.c'.rpartition('.') }} {{ 'abc'.rpartition('.') }}
[{{ 'a'.center(5) }}] [{{ 'ab'.center(5, '*') }}] [{{ 'a'.center(4, '*') }}] [{{ 'a'.ljust(3) }}] [{{ 'a'.rjust(3, '.') }}] [{{ '5'.zfill(3) }}] [{{ '-5'.zfill(4) }}] [{{ 'abc'.center(1) }}] [{{ 'é'.rjust(3, 'ü') }}] [{{ 'a\tb\tc'.expandtabs(4) }}] [{{ 'a\tb'.expandtabs() }}] [{{ '+1'.zfill(5) }}] [{{ 'ab\n\tc'.expandtabs() }}]
{{ 'abc'.isalpha() }} {{ 'ab1'.isalnum() }} {{ '12'.isdigit() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ '½'.isdigit() }} {{ ' \t'.isspace() }} {{ ''.isspace() }} {{ 'ABC'.isupper() }} {{ 'abc1'.islower() }} {{ '1'.islower() }} {{ 'Abc Def'.istitle() }} {{ 'AbC'.istitle() }} {{ 'é'.isascii() }} {{ ''.isascii() }} {{ 'a_1'.isidentifier() }} {{ '1a'.isidentifier() }} {{ 'a\n'.isprintable() }} {{ 'é'.isalpha() }} {{ '日'.isalpha() }} {{ 'ªº'.islower() }} {{ '٣'.isdecimal() }} {{ 'ǅ'.istitle() }} {{ '\x1c'.isspace() }} {{ ''.isprintable() }} {{ '①'.isdigit() }} {{ 'Ⅷ'.isnumeric() }} {{ 'ⅷ'.islower() }} {{ 'Ⓐ'.isupper() }}
{{ 'a'.join([1]) }}
{{ ''.split('') }}
{{ s.split('') }}
{{ s.index('zzz') }}
{{ s.replace('a') }}
{{ s.replace(old='a', new='b') }}
{{ s.startswith(1) }}
{{ s.startswith(['H']) }}
{{ s.strip(1) }}
{{ s.center('a') }}
{{ s.center(5, 'ab') }}
{{ s.partition('') }}
{{ s.split(',', 'a') }}
{{ s.split(1) }}
{{ s.find(1) }}
{{ s.zfill() }}
{{ s.lower(x=1) }}
"""

FORMATTING = r"""
{{ '%s' % 'a' }} {{ '%s %s' % ('a', 1) }} {{ '%d' % 5 }} {{ '%d' % 5.9 }} {{ '%5d|%-5d|%05d' % (1, 2, 3) }} {{ '%+d % d' % (1, 2) }} {{ '%x %X %#x %o %#o' % (255, 255, 255, 8, 8) }} {{ '%.3d' % 5 }} {{ '%c%c' % ('a', 98) }} {{ '%%' % () }} {{ '%s%%' % 5 }}
{{ '%f %.2f %.0f %e %.1e %g %G' % (1.5, 2.345, 2.5, 12345.678, 0.00012, 1e10, 1e-10) }} {{ '%10.3f|%-10.3f|%010.3f' % (1.5, 1.5, -1.5) }} {{ '%g' % 100000.0 }} {{ '%g' % 1000000.0 }} {{ '%#g' % 1.0 }} {{ '%.3g' % 1234.5 }} {{ '%f' % 1 }} {{ '%F' % 1.5 }} {{ '%+.1f' % 2.25 }} {{ '% .1f' % 2.35 }}
{{ '%r %a' % ('é', 'é') }} {{ '%.2s|%5s|%-5s|%5.1s' % ('abc', 'a', 'b', 'xyz') }} {{ '%(a)s %(b)d' % {'a': 'x', 'b': 2} }} {{ '%*d|%-*d' % (4, 1, 4, 2) }} {{ '%.*f' % (2, 1.239) }} {{ '%s' % none }} {{ '%s' % [1, 2] }} {{ '%s' % (none,) }} {{ '%s' % missing }}| {{ 'abc' % {} }} {{ 'abc' % [] }} {{ '%s' % true }} {{ '%d' % true }} {{ '%ld' % 4 }} {{ '%-08.3f|' % 3.14159 }} {{ '%+5s' % 'a' }} {{ '%i %u' % (3, 4) }} {{ '%#X %#5x|' % (10, 10) }}
{{ '{} {}'.format('a', 1) }} {{ '{0} {1} {0}'.format('a', 'b') }} {{ '{a} {b}'.format(a=1, b='x') }} {{ '{{}} {}'.format(1) }} {{ '{0.role} {0[n]}'.format(messages[0]) }} {{ '{a[k]}'.format(a=rows[0]) }} {{ '{[0]}'.format([5]) if false else '{0[1]}'.format([5, 6]) }} {{ '{!r} {!s}'.format('a', 'b') }} {{ '{!a}'.format('é') }}
{{ '{:5}|{:<5}|{:>5}|{:^5}|{:*^6}|'.format('a', 'b', 'c', 'd', 'e') }} {{ '{:5}|{:<5}|{:^5}|{:05}|{:+}|{: }|{:=+6}|{:x<4}'.format(1, 2, 3, 4, 5, 6, 7, 8) }} {{ '{:x} {:X} {:#x} {:b} {:#b} {:o} {:c} {:d}'.format(255, 255, 255, 5, 5, 8, 65, 7) }} {{ '{:,} {:_} {:,.2f} {:_x} {:012,} {:,}'.format(1234567, 1234567, 1234.5, 1048575, 1234, 12) }}
{{ '{:f} {:.2f} {:.0f} {:e} {:g} {:%} {:.1%} {:.3} {:10.2f}|{:<10.2f}|{:010.2f}|{:+.1f}'.format(1.5, 2.345, 2.5, 12345.678, 1e10, 0.25, 0.333, 3.14159, 1.5, 1.5, -1.5, 2.0) }} {{ '{} {} {}'.format(1.0, 1e20, none) }} {{ '{:.3} {:.3} {:.1} {:.5} {:.2}'.format(3.0, 1234.5, 2.5, 12345.0, 100.0) }} {{ '{:.2}'.format('abc') }} {{ '{:5.1}|'.format('abc') }} {{ '{:{}}|{:{w}.{p}}'.format('a', 4, 'bcd', w=5, p=2) }} {{ '{:>{w}}'.format('a', w=3) }} {{ '{:05}|{:<05}|{:é>4}'.format('ab', 'c', 'd') }} {{ '{:n} {:G} {:E}'.format(5, 1e-7, 1.5) }} {{ '{:s}'.format('q') }} {{ '{:5}|{}|{:d}'.format(true, true, true) }} {{ '{:e}'.format(5) }} {{ '{:%}'.format(1) }}
{{ '{a}'.format_map({'a': 1}) }} {{ 'x'.format() }} {{ '%s, %s!' | format('a', 'b') }} {{ '%(x)s' | format(x=1) }} {{ '%05.1f' | format(x) }} {{ '{0:>8}|{1:^7.3f}|'.format(s[:3], 2.0) }} {{ '{:#.3g} {:#o}'.format(1.0, 8) }} {{ '{:-} {:-5d}|'.format(3, 4) }}
{{ '%d' % 'a' }}
{{ '%s %s' % 'a' }}
{{ '%s' % (1, 2) }}
{{ 'abc' % 1 }}
{{ '%(a)s' % 1 }}
{{ '%(b)s' % {'a': 1} }}
{{ '%q' % 1 }}
{{ '%' % 1 }}
{{ '%f' % 'a' }}
{{ '%x' % 1.5 }}
{{ '%c' % 'ab' }}
{{ '{}'.format() }}
{{ '{a}'.format() }}
{{ '{'.format() }}
{{ '}'.format() }}
{{ '{0} {}'.format(1, 2) }}
{{ '{} {0}'.format(1, 2) }}
{{ '{:d}'.format('a') }}
{{ '{:s}'.format(1) }}
{{ '{:q}'.format(1) }}
{{ '{:.2}'.format(1) }}
{{ '{:5}'.format([1]) }}
{{ '{:=5}'.format('a') }}
{{ '{!x}'.format(1) }}
{{ '{0.__class__}'.format(s) }}|{{ '{0.a.b}'.format(d) }}
{{ '{0[zz].a}'.format(d) }}
{{ '{:{:{}}}'.format(1, 2, 3) }}
{{ '{:+}'.format('a') }}
"""

FILTERS = r"""
{{ -5 | abs }} {{ -x | abs }} {{ neg | abs }} {{ s | upper }} {{ s | lower }} {{ 'hello world' | title }} {{ "it's a-b (c) {d} [e] <f>" | title }} {{ 'hELLO' | capitalize }} {{ ws | trim }}| {{ 'xxaxx' | trim('x') }} {{ 'ß' | upper }} {{ 5 | upper }} {{ none | upper }} {{ 'ǆé ab' | title }}
{{ l | length }} {{ d | count }} {{ u | length }} {{ missing | length }} {{ range(5) | length }} {{ d.items() | length }} {{ '' | length }} {{ s | first }} {{ s | last }} {{ l | first }} {{ l | last }} {{ d | first }} {{ empty | first }}| {{ empty | last }}| {{ d | last }} {{ missing | first }}| {{ range(4) | last }} {{ u | last }}
{{ missing | default('x') }} {{ none | default('x') }} {{ '' | default('x') }}| {{ '' | default('x', true) }} {{ none | d('x', boolean=true) }} {{ missing | default }}| {{ d.zz | default('y') }} {{ 0 | default(1, true) }} {{ missing | default(default_value=3) }} {{ d.zz.yy | default('y') if false else 'z' }}
{{ [1, 2, 3] | join }} {{ [1, 2] | join(', ') }} {{ rows | join('-', 'k') }} {{ rows | join(',', attribute='o.p') }} {{ 'abc' | join('.') }} {{ [none, true, 1.5] | join('|') }} {{ [missing, 1] | join('-') }} {{ [] | join }}| {{ d | join(',') }} {{ ['a', 'b'] | join(d=';') }} {{ [1] | join(5) }} {{ [1, 2] | join(5) }}
{{ 'abc' | list }} {{ d | list }} {{ (1, 2) | list }} {{ range(3) | list }} {{ missing | list }} {{ d.values() | list }} {{ 'é日' | list }} {{ d | items | list }} {{ missing | items | list }} {{ d | dictsort }} {{ {'B': 1, 'a': 2} | dictsort }} {{ {'B': 1, 'a': 2} | dictsort(true) }} {{ {'b': 1, 'a': 2} | dictsort(by='value', reverse=true) }} {{ {'b': 'X', 'a': 'y'} | dictsort(false, 'value') }}
{{ l | sort }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ l | sort(reverse=true) }} {{ rows | sort(attribute='v') | map(attribute='v') | list }} {{ rows | sort(attribute='k,v') | map(attribute='v') | join }} {{ rows | sort(attribute='k', reverse=true) | map(attribute='v') | join }} {{ 'cab' | sort }} {{ [[2, 1], [1, 2]] | sort }} {{ rows | sort(attribute='o.p', reverse=true) | map(attribute='k') | join }} {{ [none, none] | sort }} {{ [(1, 'b'), (1, 'a'), (0, 'z')] | sort }} {{ d | sort }} {{ [1.5, 1, true] | sort }} {{ [[1], [0]] | sort(attribute=0) }}
{{ l | reverse | list }} {{ s | reverse }} {{ u | reverse }} {{ d | reverse | list }} {{ range(3) | reverse | list }} {{ (1, 2) | reverse | list }} {{ l | map('string') | reverse }} {{ messages | reverse | map(attribute='role') | list }}
{{ l | map('string') | list }} {{ words | map('upper') | join }} {{ rows | map(attribute='k') | list }} {{ rows | map(attribute='zz', default='-') | list }} {{ rows | map(attribute='o.p') | list }} {{ words | map('replace', 'a', 'X') | list }} {{ [[1, 2]] | map(attribute=0) | list }} {{ [1.55] | map('round', 1) | list }} {{ [[3, 1]] | map('sort') | list }} {{ words | map('default', 'q') | list }} {{ rows | map('items') | map('list') | list }} {{ [] | map('upper') | list }} {{ ['a'] | map('center', width=3) | list }}
{{ range(10) | select('odd') | list }} {{ range(10) | reject('divisibleby', 3) | list }} {{ [0, 1, '', 'a', none] | select | list }} {{ [0, 1, none] | reject | list }} {{ rows | selectattr('v', '>', 1) | map(attribute='v') | list }} {{ rows | selectattr('k', 'equalto', 'x') | list | length }} {{ rows | rejectattr('k', 'in', ['x']) | map(attribute='k') | list }} {{ rows | selectattr('zz', 'defined') | list }} {{ rows | selectattr('v') | list | length }} {{ messages | selectattr('role', 'eq', 'user') | map(attribute='content') | join('|') }} {{ l | select('>=', 2) | list }} {{ [1, 'a', 2.0] | select('number') | list }} {{ rows | rejectattr('o.p', 'ne', 'q') | list | length }} {{ [missing, none] | select('defined') | list }} {{ l | select('in', [1, 2]) | sort }}
{{ l | sum }} {{ rows | sum(attribute='v') }} {{ [] | sum }} {{ [1.5, 2] | sum }} {{ [[1], [2]] | sum(start=[]) }} {{ l | sum(start=10) }} {{ rows | sum('v', 100) }} {{ l | max }} {{ l | min }} {{ words | max }} {{ words | min }} {{ words | min(case_sensitive=true) }} {{ rows | max(attribute='v') }} {{ [] | max }}| {{ 'hello' | max }} {{ ['a', 'A'] | max }} {{ ['A', 'a'] | min }} {{ [1, 1.0, true] | max }}
{{ [1, 2, 1, 'a', 'A', 1.0] | unique | list }} {{ words | unique | list }} {{ ['a', 'A'] | unique(true) | list }} {{ rows | unique(attribute='k') | map(attribute='v') | list }} {{ [none, none, missing] | unique | list }} {{ [(1, 2), (1, 2)] | unique | list }}
{% for g in rows | groupby('k') %}{{ g.grouper }}:{{ g.list | length }}{{ g }} {% endfor %}{% for k, v in rows | groupby('v') %}{{ k }}={{ v[0].k }} {% endfor %}{{ rows | groupby('zz', default='d') | length }} {{ rows | groupby('k') }} {{ [{'k': 'a'}, {'k': 'A'}] | groupby('k', case_sensitive=true) | length }} {{ [{'k': 'a'}, {'k': 'A'}] | groupby('k') }} {{ ['ab', 'c', 'ad'] | groupby(0) }}
{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, 'x') | list }} {{ [] | batch(2) | list }} {{ [1, 2, 3, 4, 5] | slice(2) | list }} {{ [1, 2, 3, 4, 5] | slice(3, 'x') | list }} {{ [1, 2] | slice(4) | list }} {{ [1, 2, 3] | batch(1) | list }} {{ 'abcde' | batch(3) | map('join') | list }}
{{ 'a\nb\n\nc' | indent }}| {{ 'a\nb' | indent(2, true) }} {{ 'a\n\nb' | indent(2, blank=true) }} {{ 'a\nb' | indent('>>') }} {{ 'a\nb' | indent(width=1, first=true) }} {{ 'a\n' | indent }}| {{ '' | indent }}| {{ 'a\r\nb\u2028c' | indent }}
{{ '5' | int }} {{ '5.9' | int }} {{ 'x' | int }} {{ 'x' | int(3) }} {{ '0x1f' | int(base=16) }} {{ '1f' | int(0, 16) }} {{ ' 7 ' | int }} {{ 5.9 | int }} {{ -5.9 | int }} {{ none | int }} {{ [] | int(9) }} {{ true | int }} {{ '' | int }} {{ '1e3' | int }} {{ '1_0' | int }} {{ '-3' | int }} {{ '0b11' | int(0, 2) }} {{ '0o7' | int(base=0) }} {{ '007' | int }} {{ 'inf' | int }} {{ '07' | int(5, 0) }} {{ '१२' | int(4) if false else 12 }}
{{ '5' | float }} {{ 'x' | float }} {{ 'x' | float(1.5) }} {{ 5 | float }} {{ ' 1.5e3 ' | float }} {{ none | float }} {{ 'inf' | float }} {{ '-Infinity' | float }} {{ 'nan' | float }} {{ '1_0.5' | float }} {{ '.5' | float }} {{ '5.' | float }} {{ true | float }} {{ '' | float }} {{ '1e400' | float if false else 1 }}
{{ 42.55 | round }} {{ 42.55 | round(1) }} {{ 42.55 | round(1, 'floor') }} {{ 42.55 | round(1, 'ceil') }} {{ 2.5 | round }} {{ 3.5 | round }} {{ -2.5 | round }} {{ 0.5 | round }} {{ -0.4 | round }} {{ 5 | round }} {{ 1234 | round(-2) }} {{ 1250 | round(-2) }} {{ 1350 | round(-2) }} {{ 2.675 | round(2) }} {{ 1e20 | round }} {{ 1234.5 | round(-2) }} {{ 2.1 | round(method='ceil') }} {{ -0.5 | round(0, 'ceil') }} {{ 7 | round(0, 'floor') }} {{ 15 | round(-1) }} {{ -15 | round(-1) }} {{ 25 | round(-1) }} {{ true | round }}
{{ s | replace('l', 'L') }} {{ s | replace('l', 'L', 1) }} {{ 5 | replace(5, 6) }} {{ 'aaa' | replace('a', 'b', count=2) }} {{ s | replace('', '.') }} {{ none | replace('None', 'x') }} {{ s | center(20) }}| {{ 'a' | center }}| {{ s | string }} {{ 5 | string }} {{ [1] | string | length }} {{ missing | string }}| {{ 'a' | safe }} {{ '<a href="x">\'&' | escape }} {{ '<' | e }} {{ 5 | e }} {{ '<' | forceescape }}
{{ 'foo bar baz qux' | truncate(9) }} {{ 'foo bar baz qux' | truncate(9, true) }} {{ 'foo bar baz qux' | truncate(11) }} {{ 'foo bar baz qux' | truncate(11, false, '...', 0) }} {{ 'foo bar' | truncate(3, end='') if false else 'x' }} {{ 'a b c d e f g h' | truncate(5, leeway=0, end='~') }} {{ u | truncate(7, true, '…', 0) }} {{ 'abcdefghij' | truncate(4, leeway=0) }}
{{ 'a b c' | wordcount }} {{ "it's 日本 x_y -- 1.5" | wordcount }} {{ '' | wordcount }} {{ 'a b/c?&é' | urlencode }} {{ {'a': 1, 'b c': 'd&e/'} | urlencode }} {{ [('a', 'b')] | urlencode }} {{ 5 | urlencode }} {{ '~-_.' | urlencode }} {{ none | urlencode }} {{ d | attr('a') }}| {{ s | attr('upper') is callable }} {{ s | attr('x') is defined }} {{ (d | attr('items'))() | list | length }}
{% set g = l | map('string') %}{{ g | join }}|{{ g | join }}|{{ (l | map('string')) is iterable }} {{ (l | select) is sequence }} {{ 'x' if l | reject('defined') else 'y' }} {{ 'a' if [] | map('upper') else 'b' }}{% set h = l | select('odd') %}{{ h | first }}{{ h | list }}{% set r = l | reverse %}{{ 3 in r }}{{ r | list }}
{{ l | tojson }} {{ d | tojson }} {{ nested | tojson }} {{ u | tojson }} {{ '<b>&\'"' | tojson }} {{ ctrl | tojson }} {{ none | tojson }} {{ true | tojson }} {{ 1.5 | tojson }} {{ 1e20 | tojson }} {{ (1, 2) | tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }} {{ [] | tojson }} {{ {} | tojson }} {{ big | tojson }} {{ ('inf' | float, 'nan' | float) | tojson }} {{ '\u2028/\t' | tojson }}
{{ d | tojson(indent=2) }} {{ nested | tojson(indent=1) }} {{ [] | tojson(indent=2) }} {{ [{}] | tojson(indent=4) }} {{ d | tojson(indent='--') }} {{ d | tojson(sort_keys=true) }} {{ u | tojson(ensure_ascii=true) }} {{ d | tojson(separators=(',', ':')) }} {{ l | tojson(separators=[';', '='], indent=1) }} {{ d | tojson(true, 2) }} {{ d | tojson(indent=0) }} {{ [1] | tojson(indent=none) }} {{ [1, [2]] | tojson(indent=-1) }} {{ ctrl | tojson(ensure_ascii=true) }}
{% filter upper %}a{{ s }}{% endfilter %}{% filter trim | replace('a', 'b') %} aaa {% endfilter %}{% filter indent(2, true) %}x
y{% endfilter %}{% filter lower %}{% set q = 'IN' %}{{ q }}{% endfilter %}{{ q }}|
{{ 'a' | abs }}
{{ none | length }}
{{ 5 | length }}
{{ 5 | list }}
{{ 5 | join }}
{{ l | map('string') | length }}
{{ l | map('string') | last }}
{{ l | map | list }}
{{ l | map('nofilter') | list }}
{{ l | map(nothing='a') | list }}
{{ l | select('notest') | list }}
{{ l | selectattr }}{{ l | selectattr() | list }}
{{ rows | selectattr('v', '>') | list }}
{{ [1, 'a'] | sort }}
{{ [none, 1] | sort }}
{{ rows | sort }}
{{ [1, 'a'] | max }}
{{ ['a'] | sum }}
{{ ['a'] | sum(start='') }}
{{ missing | abs }}
{{ missing | int }}
{{ missing | float }}
{{ missing | tojson }}
{{ [missing] | tojson }}
{{ range(3) | tojson }}
{{ d.items() | tojson }}
{{ namespace() | tojson }}
{{ {(1, 2): 3} | tojson }}
{{ {'a': 1, 2: 3} | tojson(sort_keys=true) }}
{{ s | items }}{{ s | items | list }}
{{ s | dictsort }}
{{ d | dictsort(by='x') }}
{{ missing | dictsort }}
{{ 5 | indent }}
{{ missing | indent }}
{{ s | replace('a') }}
{{ s | upper(1) }}
{{ s | trim(x=1) }}
{{ s | trim(1) }}
{{ 'a' | round }}
{{ 1.5 | round(1, 'up') }}
{{ [[1], [1]] | unique | list }}
{{ s | truncate(2) }}
{{ 5 | truncate }}
{{ l | slice(0) | list }}
{{ missing | attr('x') }}{{ 1/0 }}
{{ s | random(1) }}
{{ l | batch }}
{% set i = 'inf' %}{{ i | float | int }}
{{ d | tojson(indent=1.5) }}
"""

TESTS = r"""
{{ s is defined }} {{ missing is defined }} {{ missing is undefined }} {{ d.a is defined }} {{ d.zz is undefined }} {{ none is none }} {{ none_value is none }} {{ 0 is none }} {{ none is defined }} {{ s is not none }} {{ missing is not defined }} {{ missing is none }}
{{ s is string }} {{ 5 is string }} {{ missing is string }} {{ 5 is number }} {{ true is number }} {{ x is number }} {{ '5' is number }} {{ 5 is integer }} {{ true is integer }} {{ 5.0 is integer }} {{ 5.0 is float }} {{ 5 is float }} {{ true is boolean }} {{ 1 is boolean }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }} {{ none is false }}
{{ d is mapping }} {{ l is mapping }} {{ l is iterable }} {{ s is iterable }} {{ 5 is iterable }} {{ missing is iterable }} {{ d is iterable }} {{ l is sequence }} {{ s is sequence }} {{ d is sequence }} {{ missing is sequence }} {{ d.keys() is sequence }} {{ range(3) is sequence }} {{ 5 is sequence }} {{ none is iterable }} {{ namespace() is mapping }} {{ namespace() is iterable }} {{ d.items() is iterable }} {{ d.items() is mapping }}
{{ range is callable }} {{ s.upper is callable }} {{ s is callable }} {{ missing is callable }} {{ namespace is callable }} {{ raise_exception is defined }} {{ strftime_now is callable }} {{ cycler is defined }}
{{ 4 is even }} {{ 3 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 4.0 is even }} {{ 5 is eq 5 }} {{ 5 is equalto 5 }} {{ 5 is ne 4 }} {{ 5 is lt 6 }} {{ 5 is le 5 }} {{ 5 is gt 6 }} {{ 5 is ge 5 }} {{ 5 is greaterthan 4 }} {{ 5 is lessthan 4 }} {{ 1 is in [1] }} {{ 1 is not in [1] }} {{ 'a' is in 'abc' }} {{ 5 is not eq 5 }} {{ -3 is odd }}
{{ 'abc' is lower }} {{ 'Abc' is lower }} {{ 'ABC' is upper }} {{ '1' is upper }} {{ 5 is lower }} {{ none is upper }} {{ 1 is sameas 1 }} {{ none is sameas none }} {{ true is sameas true }} {{ 1 is sameas true }} {{ l is sameas l }} {{ [] is sameas [] }} {{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }} {{ 'nope' is test }} {{ 'tojson' is filter }} {{ s is escaped }} {{ '==' is test }} {{ 5 is filter if false else 'x' }}
{{ s is string and n is number }} {{ n is number or missing.x }} {{ not s is string }} {{ s is string == true }} {{ (s is string) == true }} {{ 'a' is string ~ 'b' }} {{ n is divisibleby n }} {{ d.a is string and d.c is iterable }} {{ l is iterable and l is not string and l is not mapping }} {{ 5 is eq -5 if false else 1 }} {{ s|length is gt 3 }} {{ 1 is eq 1 and 2 is eq 2 }} {{ x is in [2.5] }} {{ 5 is eq(5) }} {{ d['a'] is defined }} {{ messages[9] is defined }} {{ messages[0].zz is defined }} {{ l[5] is defined }}
{{ 'a' is odd }}
{{ missing is odd }}
{{ 5 is divisibleby 0 }}
{{ 1 is in 5 }}
{{ 1 is lt 'a' }}
{{ 1 is eq }}
{{ 1 is defined is true }}
{{ 1 is string is string }}
{{ 1 is number(5) }}
{{ missing.x is defined }}
"""

STATEMENTS = r"""
{% for i in l %}{{ i }}{% endfor %} {% for i in empty %}x{% else %}none{% endfor %} {% for i in l %}{{ i }}{% else %}none{% endfor %} {% for c in 'aé日' %}[{{ c }}]{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {% for i in missing %}x{% endfor %}| {% for i in range(3) %}{{ i }}{% endfor %} {% for a, (b, c) in [(1, (2, 3))] %}{{ a + b + c }}{% endfor %} {% for a, b in ['xy', [1, 2]] %}{{ a }}{{ b }}{% endfor %}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %} {% for i in l %}{{ loop.previtem }},{{ loop.nextitem }},{{ loop.previtem is defined }},{{ loop.nextitem is defined }};{% endfor %} {% for i in [1,1,2,2,1] %}{{ loop.changed(i) }}{% endfor %} {% for i in range(5) %}{{ loop.cycle('a', 'b', 'c') }}{% endfor %} {% for i in [1,1,2] %}{% if loop.changed(i, 'x') %}{{ i }}{% endif %}{% endfor %}
{% for i in range(10) if i is odd %}{{ i }}{{ loop.index }}{{ loop.last }}{{ loop.length }};{% endfor %} {% for m in messages if m.role == 'user' %}{{ m.content }}{{ ',' if not loop.last }}{% else %}no{% endfor %} {% for i in l if i > 9 %}x{% else %}none{% endfor %} {% for a, b in d.items() if b is number %}{{ a }}{{ loop.nextitem }}{% endfor %} {% for i in l if i != 1 %}{{ loop.previtem }}{{ i }}{{ loop.revindex }}{% endfor %}
{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %} {% for i in [1] %}{% continue %}{% else %}else{% endfor %} {% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{% else %}else{% endfor %} {% for i in [1] %}{% break %}{% else %}else{% endfor %} {% for i in [1,2] %}{% for j in [1,2] %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %} {% for i in [1,2] %}{% for j in [] %}{% else %}{% continue %}{% endfor %}x{% endfor %}| {% for i in [1, 2] %}{% set a %}{% break %}{% endset %}x{% endfor %}|{% for i in [1, 2] %}{% filter upper %}a{% continue %}{% endfilter %}x{% endfor %}|{% for i in [1, 2] %}{% with %}{% break %}{% endwith %}x{% endfor %}|
{% for n in [{'v': 1, 'c': [{'v': 2, 'c': [{'v': 3}]}, {'v': 4}]}] recursive %}({{ n.v }}@{{ loop.depth }}{{ loop(n.c) if n.c }}){% endfor %} {% for i in [[1, [2]], 3] recursive %}{% if i is iterable %}<{{ loop(i) }}>{% else %}{{ i }}{{ loop.depth0 }}{% endif %}{% endfor %} {% for i in [] recursive %}{% else %}e{% endfor %}
{% set a = 1 %}{% for i in l %}{% set a = a + i %}{{ a }}{% endfor %}{{ a }} {% set ns = namespace(a=0) %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }} {% if true %}{% set b = 5 %}{% endif %}{{ b }} {% set c, e2 = 1, 2 %}{{ c }}{{ e2 }} {% set (g, h) = [3, 4] %}{{ g }}{{ h }} {% set k = 1, 2 %}{{ k }} {% for i in l %}{% if loop.first %}{% set w = i %}{% endif %}{{ w }}{% endfor %}{{ w }}| {% set ns.x, ns.y = 1, 2 %}{{ ns.x + ns.y }} {% set ns.x = ns %}{{ ns.x.y }}
{% set a %}x{{ s }}y{% endset %}{{ a }}{{ a | length }} {% set a | upper %}abc{% endset %}{{ a }} {% set a | trim | replace('b', 'c') %} b {% endset %}{{ a }} {% set a %}{% set inner = 1 %}{{ inner }}{% endset %}{{ a }}{{ inner }}| {% set ns = namespace() %}{% set ns.t %}cap{% endset %}{{ ns.t }} {% set a = 'x' %}{% set a %}{{ a }}{{ a }}{% endset %}{{ a }}
{% if e %}a{% elif n > 10 %}b{% elif n == 7 %}c{% else %}d{% endif %} {% if not e %}x{% endif %} {% if missing %}x{% else %}y{% endif %} {% if 0 %}{% elif 0 %}{% else %}z{% endif %} {% if l %}t{% endif %}{% if empty %}t{% endif %}{% if ed %}t{% endif %}{% if '0' %}t{% endif %}{% if 0.0 %}t{% endif %}{% if range(0) %}t{% endif %}{% if d.keys() %}t{% endif %} {% if (1, 2) %}u{% endif %}{% if 1, %}v{% endif %}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}| {% set a = 5 %}{% with a = a + 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }} {% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}| {% with a, b = [1, 2] %}{{ a }}{{ b }}{% endwith %}
{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='z') }} {{ m(c=1, b=2, a=3) }} {{ m() }} {{ m('<') | upper }} {{ m(*[7, 8]) }} {{ m(**{'a': 9}) }} {{ m(1, *[2], **{'c': 3}) }} {{ m is callable }} {{ m.name }} {{ m(1) ~ m(2) }}
{% macro m(a, b=a ~ '!') %}{{ a }}{{ b }}{% endmacro %}{{ m('x') }} {% macro v() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ v(1, 2, a=3) }} {{ v() }} {% macro w(a) %}{{ a }}{{ varargs | join('-') }}{% endmacro %}{{ w(1, 2, 3) }} {% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }} {% macro o() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ o() }} {% macro p() %}{% set later = 'in' %}{{ later }}{% endmacro %}{{ p() }}{{ later }} {% macro q(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ q() }} {{ q(none) }} {% macro z() %}  a  {% endmacro %}[{{ z() }}] [{{ z() | trim }}]
{% macro outer() %}{% macro inner() %}in{% endmacro %}<{{ inner() }}>{% endmacro %}{{ outer() }} {% for i in l %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %} {% set i = 'g' %}{% macro f() %}{{ i }}{% endmacro %}{% for i in l %}{{ f() }}{% endfor %} {% set ns = namespace(n=0) %}{% macro inc() %}{% set ns.n = ns.n + 1 %}{% endmacro %}{{ inc() }}{{ inc() }}{{ ns.n }} {% macro lo() %}{{ loop is defined }}{% endmacro %}{% for i in [1] %}{{ lo() }}{% endfor %} {% macro k(a) %}{{ kwargs.x }}{{ a }}{% endmacro %}{{ k(1, x=2) }} {{ k(x=5, a=6) }}
{% macro w(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call w('b') %}body {{ s }}{% endcall %} {% macro lst(items) %}{% for i in items %}{{ caller(i, loop.index) }}{% endfor %}{% endmacro %}{% call(x, y) lst(['a', 'b']) %}{{ y }}{{ x }},{% endcall %} {% macro opt() %}{{ caller is defined }}{% endmacro %}{{ opt() }}{% call opt() %}{% endcall %} {% call(x=3) w('i') %}{{ x }}{% endcall %} {% macro cd(caller=none) %}{{ caller() if caller else 'no' }}{% endmacro %}{{ cd() }}{% call cd() %}yes{% endcall %} {% call w('a') %}{% call w('c') %}x{% endcall %}{% endcall %}
{% generation %}gen {{ s }}{% endgeneration %}| {% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% set q = 1 %}{% endgeneration %}{{ q }}{% endif %}{% endfor %}| {%- generation -%}  x  {%- endgeneration -%} |
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }} {% set j = joiner() %}{{ j() }}a{{ j() }}b{{ j() }} {% set j = joiner('|') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %} {{ range(0) | list }} {{ range(5, 2) | list }} {{ range(5, 2, -1) | list }} {{ range(0, 10, 3) | list }} {{ range(-3) | list }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns.zz }}|{{ ns['a'] }} {% set ns = namespace(found=false) %}{% for m in messages %}{% if m.role == 'assistant' %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }} {% for m in messages if not ns.stop %}{{ loop.index }}{% set ns.stop = true %}{% endfor %} {% set ns.items = [1] %}{{ ns.items }} {{ namespace(self=1).self }}
{% set m2 = messages[1:] %}{{ m2 | length }} {% set messages = messages[:1] %}{{ messages | length }} {% for message in messages %}{% set content = message['content'] | trim %}{{ content }}{% endfor %} {{ content }}| {% set x = x %}{{ x }} {% set missing = missing | default(5) %}{{ missing }} {% set s = s ~ '!' %}{{ s }} {% set range = 5 %}{{ range }} {% set true_ = true %}{{ true_ }}
{{ raise_exception('boom') }}
{% if true %}{{ raise_exception('x' ~ 1) }}{% endif %}
{{ raise_exception() }}
{% for i in 5 %}{% endfor %}
{% for i in none %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for a, b in [[1]] %}{% endfor %}
{% for a, b in [[1, 2, 3]] %}{% endfor %}
{% set a, b = [1] %}
{% set ns.a = 1 %}
{% set d.a = 1 %}
{% set ns = namespace() %}{% set ns._a = 1 %}
{{ namespace(_a=1) }}
{{ namespace(1) }}
{{ namespace({}, {}) }}
{% for i in l %}{{ loop(l) }}{% endfor %}
{% for i in l %}{{ loop.cycle() }}{% endfor %}
{% for i in l %}{{ loop.zz }}{% endfor %}|
{{ loop.index }}
{{ loop }}|
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=1) }}
{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
{% macro m() %}{% endmacro %}{% call m() %}x{% endcall %}
{% macro m(caller) %}{{ caller() }}{% endmacro %}{{ m() }}
{% call s.upper() %}x{% endcall %}
{{ cycler() }}
{{ range() }}
{{ range(1, 2, 0) }}
{{ range('a') }}
{{ range(1.5) }}
{{ range(1000000000) }}
{{ range(-1000000000, 1000000000) }}
{{ m(*5) }}
{{ dict(**5) }}
{{ dict(**{1: 2}) }}
{{ dict(a=1, **{'a': 2}) }}
{% include 'x' %}
{% extends 'x' %}
{% import 'x' as y %}
{% for i in l recursive %}{{ loop() }}{% endfor %}
{{ strftime_now(5) }}
{{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%B %d, %Y') }} {{ strftime_now('%A %a %j %U %W %w %u %V %G %y %C') }} {{ strftime_now('%-d/%-m %e %k %l %I %p %M') }} {{ strftime_now('%D %F %T %R %c %x %X %r %h%n%t%%') }} {{ strftime_now('') }}| {{ strftime_now('no fields é') }} {{ strftime_now('%^a %^B %_d %-H %_H %-j') }}
"""


def lines(text):
    """Snippets of a block: a line each, or more if it ends in a backslash or an open filter tag."""
    out = []
    for line in text.strip("\n").split("\n"):
        last = out[-1] if out else ""
        if last.endswith("\\") or last.count("{% filter") > last.count("{% endfilter"):
            out[-1] += "\n" + line
        else:
            out.append(line)
    return out


def all_snippets():
    blocks = [PRINTING, LEXING, OPERATORS, LOOKUPS, METHODS, FORMATTING, FILTERS, TESTS, STATEMENTS]
    return [s for b in blocks for s in lines(b)] + WHITESPACE
