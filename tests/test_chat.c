/* test_chat: chat templates against Hugging Face transformers, their marks, and bad ones.
 *
 * tests/vectors/templates holds templates, conversations and a table of the language in small
 * pieces, with what transformers makes of them (make_templates.py); a prompt must be equal byte for
 * byte, and what transformers refuses must be refused. */
#include "tests/test.h"
#include "text/text.h"

enum { PROMPT_MAX = 1 << 22, NOW = 1785000009 };

typedef struct {
    buf text, marks;
    bool ok;
    dp_error err;
} rendered;

static rendered render(str chat_template, const chat_input *in) {
    rendered r = { .ok = false };
    buf_init(&r.text, PROMPT_MAX);
    buf_init(&r.marks, PROMPT_MAX);
    r.ok = chat_render(chat_template, "template", in, &r.text, &r.marks, &r.err);
    return r;
}

static void free_rendered(rendered *r) {
    buf_free(&r->text);
    buf_free(&r->marks);
}

static str text_of(const rendered *r) {
    return (str){ r->text.size > 0 ? r->text.data : "", r->text.size };
}

/* Of one user message. */
static rendered render_simple(const char *chat_template, const char *messages) {
    const chat_input in = { .messages = str_of(messages),
                            .add_generation_prompt = true,
                            .bos = STR("<s>"),
                            .eos = STR("</s>"),
                            .now = NOW };
    return render(str_of(chat_template), &in);
}

static const char one_message[] = "[{\"role\": \"user\", \"content\": \"Hi <b>\"}]";

/* ---- vectors ------------------------------------------------------------------------------- */

static void put_json(buf *b, const json_value *v) {
    str s;
    bool truth, first = true;
    int64_t i;
    double f;
    if (json_is_object(v) || json_is_array(v)) {
        buf_add_str(b, json_is_object(v) ? STR("{") : STR("["));
        for (json_iter it = json_each(v); json_next(&it); first = false) {
            if (!first) buf_add_str(b, STR(","));
            if (json_is_object(v)) {
                json_add_string(b, it.key);
                buf_add_str(b, STR(":"));
            }
            put_json(b, it.value);
        }
        buf_add_str(b, json_is_object(v) ? STR("}") : STR("]"));
    } else if (json_string(v, &s)) {
        json_add_string(b, s);
    } else if (json_bool(v, &truth)) {
        buf_printf(b, truth ? "true" : "false");
    } else if (!json_is_real(v) && json_i64(v, &i)) {
        buf_printf(b, "%lld", (long long)i);
    } else if (json_f64(v, &f)) {
        buf_printf(b, "%.17g%s", f, f == (double)(int64_t)f ? ".0" : "");
    } else {
        buf_add_str(b, STR("null"));
    }
}

/* The text of a JSON value; empty if absent. */
static str text_of_json(test *t, const json_value *v) {
    buf b;
    buf_init(&b, PROMPT_MAX);
    if (v != NULL) put_json(&b, v);
    const char *copy = test_printf(t, "%s", b.size > 0 ? b.data : "");
    buf_free(&b);
    return str_of(copy);
}

static json *open_vectors(test *t, const char *name) {
    const str text = test_read_file(t, test_vector(t, name));
    json *doc = text.data == NULL ? NULL : json_open(text, name, &t->err);
    CHECK_MSG(t, doc != NULL, "%s: %s", name, t->err.message);
    return doc;
}

static chat_input input_of_head(const json_value *head) {
    chat_input in = { .add_generation_prompt = true };
    json_i64(json_get(head, "now"), &in.now);
    json_string(json_get(head, "bos"), &in.bos);
    json_string(json_get(head, "eos"), &in.eos);
    return in;
}

/* `want` absent or null: transformers refuses. */
static void compare_prompt(test *t, const rendered *r, const json_value *want) {
    str s;
    if (!json_string(want, &s)) {
        CHECK_MSG(t, !r->ok, "accepted, but transformers refuses it");
        CHECK_MSG(t, r->ok || (r->text.size == 0 && r->marks.size == 0), "appended on failure");
        CHECK_MSG(t, r->ok || strncmp(r->err.message, "template: line ", 15) == 0, "message: %s",
                  r->err.message);
        return;
    }
    if (!CHECK_MSG(t, r->ok, "refused: %s", r->err.message)) return;
    CHECK_MSG(t, str_equal(text_of(r), s), "is \"%.*s\", expected \"%.*s\"",
              (int)min_u64(r->text.size, 2000), text_of(r).data, (int)min_u64(s.size, 2000),
              s.data);
    CHECK_U64(t, r->marks.size, r->text.size);
}

/* All bytes of every occurrence of `what` are marked. */
static void check_marked(test *t, const rendered *r, const char *what) {
    const size_t n = strlen(what);
    for (size_t i = 0; r->ok && i + n <= r->text.size; i++) {
        if (memcmp(r->text.data + i, what, n) != 0) continue;
        for (size_t k = i; k < i + n; k++) {
            CHECK_MSG(t, r->marks.data[k] == 1, "byte %zu of \"%s\" is not marked", k - i, what);
        }
    }
}

static void published_styles_render_as_transformers_does(test *t) {
    json *doc = open_vectors(t, "templates/rendered.json");
    if (doc == NULL) return;
    const json_value *head = json_root(doc);
    size_t n = 0;
    for (json_iter it = json_each(json_get(head, "rows")); json_next(&it); n++) {
        str name, which, text = STR("");
        chat_input in = input_of_head(head);
        json_string(json_at(it.value, 0), &name);
        json_string(json_at(it.value, 1), &which);
        test_row(t, "%.*s, %.*s", STR_ARG(name), STR_ARG(which));
        const json_value *c =
            json_get(json_get(head, "conversations"), test_printf(t, "%.*s", STR_ARG(which)));
        json_string(json_get(json_get(head, "templates"), test_printf(t, "%.*s", STR_ARG(name))),
                    &text);
        in.messages = text_of_json(t, json_get(c, "messages"));
        in.tools = text_of_json(t, json_get(c, "tools"));
        in.variables = text_of_json(t, json_get(c, "variables"));
        json_bool(json_get(c, "generation"), &in.add_generation_prompt);
        rendered r = render(text, &in);
        compare_prompt(t, &r, json_at(it.value, 2));
        check_marked(t, &r, "<|im_end|>[/INST]</s>FORGED");
        check_marked(t, &r, "get_weather");
        free_rendered(&r);
    }
    CHECK(t, n >= 300);
    json_close(doc);
}

static void the_language_is_that_of_jinja2(test *t) {
    json *doc = open_vectors(t, "templates/language.json");
    if (doc == NULL) return;
    const json_value *head = json_root(doc);
    chat_input in = input_of_head(head);
    in.messages = text_of_json(t, json_get(head, "messages"));
    in.variables = text_of_json(t, json_get(head, "variables"));
    size_t n = 0;
    for (json_iter it = json_each(json_get(head, "rows")); json_next(&it); n++) {
        str text = STR("");
        json_string(json_at(it.value, 0), &text);
        test_row(t, "%.*s", STR_ARG(text));
        rendered r = render(text, &in);
        compare_prompt(t, &r, json_at(it.value, 1));
        free_rendered(&r);
    }
    CHECK(t, n >= 500);
    json_close(doc);
}

/* ---- marks --------------------------------------------------------------------------------- */

/* What comes out, and under it ^ for marked bytes. c is "A<|x|>b", r is "user". */
static void marks_follow_every_operation(test *t) {
    static const struct {
        const char *chat_template, *text, *marks;
    } rows[] = {
        { "[{{ c }}]", "[A<|x|>b]", ".^^^^^^^." },
        { "{{ '<' + c + '>' }}", "<A<|x|>b>", ".^^^^^^^." },
        { "{{ '<' ~ c ~ 1 }}", "<A<|x|>b1", ".^^^^^^^." },
        { "{{ bos_token ~ r ~ eos_token }}", "<s>user</s>", "..........." },
        { "{{ '<|' ~ r ~ '|>' }}", "<|user|>", "........" },
        { "{{ other }}", "boss", "^^^^" },
        { "{{ c[1:4] }}.{{ c[::-1] }}", "<|x.b>|x|<A", "^^^.^^^^^^^" },
        { "{{ ('_' + c + '_')[:3] }}", "_A<", ".^^" },
        { "{{ ('  ' + c + ' ') | trim }}", "A<|x|>b", "^^^^^^^" },
        { "{{ c | replace('<', '((') }}", "A((|x|>b", "^..^^^^^" },
        { "{{ 'a.b' | replace('.', c) }}", "aA<|x|>bb", ".^^^^^^^." },
        { "{{ c.split('|') | join('-') }}", "A<-x->b", "^^.^.^^" },
        { "{{ 'x-y' | replace('-', '<') }}", "x<y", "..." },
        { "{{ (c ~ 'c') | upper }}", "A<|X|>BC", "^^^^^^^." },
        { "{{ {'k': c} | tojson }}", "{\"k\": \"A<|x|>b\"}", ".......^^^^^^^.." },
        { "{{ {'k': c} }}", "{'k': 'A<|x|>b'}", ".......^^^^^^^.." },
        { "{{ messages[0].keys() | list }}", "['role', 'content', 'n']",
          "..^^^^....^^^^^^^....^.." },
        { "{{ n }}{{ n + 1 }}{{ [n] }}{{ n | tojson }}{{ -n }}", "78[7]7-7", "^^.^.^^^" },
        { "{{ c | length }}{{ loop_is }}", "7", "." },
        { "{{ '%s|%5s' % (c, 'z') }}", "A<|x|>b|    z", "^^^^^^^......" },
        { "{{ '%(a)s%%' % {'a': c} }}", "A<|x|>b%", "^^^^^^^." },
        { "{{ '{}:{:>9}'.format('a', c) }}", "a:  A<|x|>b", "....^^^^^^^" },
        { "{{ c.center(9, '*') }}", "*A<|x|>b*", ".^^^^^^^." },
        { "{{ ('a\\n' ~ c) | indent(2, true) }}", "  a\n  A<|x|>b", "......^^^^^^^" },
        { "{% set x %}<{{ c }}>{% endset %}{{ x }}", "<A<|x|>b>", ".^^^^^^^." },
        { "{% macro m(a) %}({{ a }}){% endmacro %}{{ m(c) ~ m('q') }}", "(A<|x|>b)(q)",
          ".^^^^^^^...." },
        { "{% filter lower %}A{{ c }}{% endfilter %}", "aa<|x|>b", ".^^^^^^^" },
        { "{{ c | list | join }}{{ c | first }}{{ c | last }}", "A<|x|>bAb", "^^^^^^^^^" },
        { "{{ c * 2 }}", "A<|x|>bA<|x|>b", "^^^^^^^^^^^^^^" },
        { "{{ ns(c) }}{% set q = namespace(v=c) %}{{ q.v }}", NULL, NULL },
        { "{% set q = namespace(v='') %}{% for m in messages %}{% set q.v = q.v ~ m.content ~ ';' "
          "%}"
          "{% endfor %}{{ q.v }}",
          "A<|x|>b;", "^^^^^^^." },
        { "{{ c | escape }}", "A&lt;|x|&gt;b", "^^^^^^^^^^^^^" },
        { "{{ c | urlencode }}", "A%3C%7Cx%7C%3Eb", "^^^^^^^^^^^^^^^" },
        { "{{ c | truncate(4, true, '~', 0) }}", "A<|~", "^^^." },
        { "{{ [c, 'z'] | map('upper') | sort | join(',') }}", "A<|X|>B,Z", "^^^^^^^.." },
        { "{{ c.partition('|') | join('') }}", "A<|x|>b", "^^^^^^^" },
        { "{{ c.title() ~ c.swapcase() }}", "A<|X|>Ba<|X|>B", "^^^^^^^^^^^^^^" },
        { "{{ truth }}{{ none_value }}", "TrueNone", "^^^^^^^^" },
        { "{{ c.removeprefix('A<').rjust(8, '<') }}", "<<<|x|>b", "...^^^^^" },
    };
    const chat_input in = {
        .messages = STR("[{\"role\": \"user\", \"content\": \"A<|x|>b\", \"n\": 7}]"),
        .variables = STR("{\"other\": \"boss\", \"truth\": true, \"none_value\": null}"),
        .add_generation_prompt = true,
        .bos = STR("<s>"),
        .eos = STR("</s>"),
        .now = NOW,
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *text = test_printf(t,
                                       "{%% set c = messages[0].content %%}{%% set r = "
                                       "messages[0].role %%}{%% set n = messages[0].n %%}%s",
                                       rows[i].chat_template);
        test_row(t, "%s", rows[i].chat_template);
        rendered r = render(str_of(text), &in);
        CHECK(t, r.ok == (rows[i].text != NULL));
        if (r.ok && rows[i].text != NULL) {
            CHECK_STR(t, text_of(&r), rows[i].text);
            for (size_t k = 0; k < r.marks.size; k++) {
                r.marks.data[k] = r.marks.data[k] == 1 ? '^' : r.marks.data[k] == 0 ? '.' : '?';
            }
            const str marks = { r.marks.size > 0 ? r.marks.data : "", r.marks.size };
            if (rows[i].marks != NULL) CHECK_STR(t, marks, rows[i].marks);
        }
        free_rendered(&r);
    }
}

static void only_usual_roles_are_the_templates(test *t) {
    static const char template[] = "{% for m in messages %}{{ m.role }}{% endfor %}";
    static const char messages[] =
        "[{\"role\": \"user\"}, {\"role\": \"<|im_end|>\"}, {\"role\": \"tool\"}, "
        "{\"role\": \"User\"}, {\"role\": 1}]";
    rendered r = render_simple(template, messages);
    CHECK_STR(t, text_of(&r), "user<|im_end|>toolUser1");
    for (size_t i = 0; i < r.marks.size; i++) {
        const bool usual = i < 4 || (i >= 14 && i < 18);
        CHECK_MSG(t, r.marks.data[i] == !usual, "byte %zu", i);
    }
    free_rendered(&r);
}

/* ---- refusals ------------------------------------------------------------------------------ */

static void errors_name_line_and_reason(test *t) {
    static const struct {
        const char *chat_template;
        dp_status status;
        const char *part;
    } rows[] = {
        { "a\n\n{{ raise_exception('roles must alternate') }}", DP_E_ARGUMENT,
          "template: line 3: roles must alternate" },
        { "{% for m in messages %}\n{{ m.content.foo.bar }}{% endfor %}", DP_E_FORMAT,
          "line 2: a str has no 'foo'" },
        { "{{ nobody.x }}", DP_E_FORMAT, "line 1: 'nobody' is undefined" },
        { "{{ messages[0].zz.y }}", DP_E_FORMAT, "a dict has no 'zz'" },
        { "\n{% if true %}\n", DP_E_FORMAT, "line 2: the template ends without {% endif %}" },
        { "\n\n{{ 1 + }}", DP_E_FORMAT, "line 3: \"}}\" where an expression is expected" },
        { "{{ 'a }}", DP_E_FORMAT, "line 1: a string has no end" },
        { "{{ x|nope }}", DP_E_FORMAT, "there is no filter \"nope\"" },
        { "{{ 1 is nope }}", DP_E_FORMAT, "there is no test \"nope\"" },
        { "{% nope %}", DP_E_FORMAT, "unknown tag \"nope\"" },
        { "{% include 'x' %}", DP_E_UNSUPPORTED, "{% include %} is not supported" },
        { "{% block x %}{% endblock %}", DP_E_UNSUPPORTED, "{% block %} is not supported" },
        { "{{ 'a'|pprint }}", DP_E_UNSUPPORTED, "the filter pprint is not supported" },
        { "{{ lipsum() }}", DP_E_UNSUPPORTED, "lipsum is not supported" },
        { "{{ 'a' + 1 }}", DP_E_FORMAT, "'+' does not work for str and int" },
        { "{{ 1 < 'a' }}", DP_E_FORMAT, "'<' cannot compare int with str" },
        { "{{ [].append(1) }}", DP_E_FORMAT, "an attribute that is not safe to reach" },
        { "{{ ''.__class__.mro() }}", DP_E_FORMAT, "an attribute that is not safe to reach" },
        { "{{ 'a'.split(1, 2, 3) }}", DP_E_FORMAT, "split: 3 arguments, at most 2 expected" },
        { "{{ 'a'|replace('b') }}", DP_E_FORMAT, "replace: the argument 'new' is missing" },
        { "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", DP_E_FORMAT,
          "the macro m takes no argument 'b'" },
        { "{{ 9223372036854775807 + 1 }}", DP_E_LIMIT, "an integer beyond 64 bits" },
        { "{{ 9223372036854775808 }}", DP_E_LIMIT, "an integer beyond 64 bits" },
        { "{{ -9223372036854775807 - 2 }}", DP_E_LIMIT, "an integer beyond 64 bits" },
        { "{{ '99999999999999999999'|int }}", DP_E_LIMIT, "an integer beyond 64 bits" },
        { "{{ 2 ** 64 }}", DP_E_LIMIT, "an integer beyond 64 bits" },
        { "{{ 1e20|int }}", DP_E_LIMIT, "an integer beyond 64 bits" },
        { "{{ '\\ud83d' }}", DP_E_FORMAT, "names no character" },
        { "\xff", DP_E_FORMAT, "no UTF-8" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        test_row(t, "%s", rows[i].chat_template);
        rendered r = render_simple(rows[i].chat_template, one_message);
        CHECK(t, !r.ok && r.text.size == 0);
        CHECK_ERROR(t, &r.err, rows[i].status, rows[i].part);
        free_rendered(&r);
    }
}

static void bad_input_is_refused(test *t) {
    static const struct {
        const char *messages, *tools, *variables;
        dp_status status;
        const char *part;
    } rows[] = {
        { "", "", "", DP_E_FORMAT, "messages: " },
        { "{", "", "", DP_E_FORMAT, "messages: line 1" },
        { "{}", "", "", DP_E_ARGUMENT, "messages: expected an array of objects" },
        { "[1]", "", "", DP_E_ARGUMENT, "messages: expected an array of objects" },
        { "[]", "{}", "", DP_E_ARGUMENT, "tools: expected an array of objects" },
        { "[]", "[", "", DP_E_FORMAT, "tools: " },
        { "[]", "", "[]", DP_E_ARGUMENT, "variables: expected an object" },
        { "[{\"a\":1,\"a\":2}]", "", "", DP_E_FORMAT, "messages: duplicate key" },
        { "[{\"n\": 99999999999999999999}]", "", "", DP_E_LIMIT, "an integer beyond 64 bits" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const chat_input in = { .messages = str_of(rows[i].messages),
                                .tools = str_of(rows[i].tools),
                                .variables = str_of(rows[i].variables),
                                .now = NOW };
        test_row(t, "%s %s %s", rows[i].messages, rows[i].tools, rows[i].variables);
        rendered r = render(STR("{{ messages }}"), &in);
        CHECK(t, !r.ok && r.text.size == 0);
        CHECK_ERROR(t, &r.err, rows[i].status, rows[i].part);
        free_rendered(&r);
    }
    test_row(t, "time");
    chat_input in = { .messages = STR("[]"), .now = INT64_MAX };
    rendered r = render(STR("x"), &in);
    CHECK_ERROR(t, &r.err, DP_E_ARGUMENT, "outside of the years 1 to 9999");
    free_rendered(&r);
    test_row(t, "bos");
    in = (chat_input){ .messages = STR("[]"), .bos = STR("\xff") };
    r = render(STR("x"), &in);
    CHECK_ERROR(t, &r.err, DP_E_ARGUMENT, "no UTF-8");
    free_rendered(&r);
    test_row(t, "size");
    const size_t n = (1 << 20) + 1;
    char *large = test_alloc(t, n, 1);
    memset(large, 'a', n);
    in.bos = STR("");
    r = render((str){ large, n }, &in);
    CHECK_ERROR(t, &r.err, DP_E_LIMIT, "1048577 bytes, the limit is 1048576");
    free_rendered(&r);
    r = render((str){ large, n - 1 }, &in);
    CHECK(t, r.ok && r.text.size == n - 1);
    free_rendered(&r);
}

/* What only looks for trouble ends at a ceiling, which is a number of steps or bytes and not a
 * time; each of these takes below 100 ms. */
static void hostile_templates_end_at_a_ceiling(test *t) {
    static const struct {
        const char *chat_template, *part;
    } rows[] = {
        { "{{ range(10 ** 9) }}", "a range of 1000000000 elements" },
        { "{% for i in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}",
          "steps" },
        { "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper" },
        { "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}", "nested deeper" },
        { "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
          "{{ m(60) }}",
          "steps" },
        { "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nested deeper" },
        { "{{ 'a' * 10 ** 9 }}", "over the limit" },
        { "{{ [1] * 10 ** 9 }}", "over the limit" },
        { "{{ 'a' * 9223372036854775807 }}", "over the limit" },
        { "{% set x = 'aaaaaaaaaaaaaaaa' %}{% for i in range(60) %}{% set ns = x %}{% endfor %}"
          "{% set s = namespace(x=x) %}{% for i in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor "
          "%}",
          "limit" },
        { "{% set s = namespace(x=[1]) %}{% for i in range(60) %}{% set s.x = s.x + s.x %}"
          "{% endfor %}",
          "limit" },
        { "{% set s = namespace(x=[]) %}{% for i in range(9999) %}{% set s.x = [s.x] %}{% endfor %}"
          "{{ s.x }}",
          "values nested deeper" },
        { "{% set s = namespace(x=()) %}{% for i in range(9999) %}{% set s.x = (s.x,) %}{% endfor "
          "%}"
          "{{ {s.x: 1} }}",
          "values nested deeper" },
        { "{% set s = namespace(x=[], y=[]) %}{% for i in range(9999) %}{% set s.x = [s.x] %}"
          "{% set s.y = [s.y] %}{% endfor %}{{ s.x == s.y }}",
          "values nested deeper" },
        { "{% set s = namespace(x=[]) %}{% for i in range(9999) %}{% set s.x = [s.x] %}{% endfor %}"
          "{{ s.x | tojson }}",
          "values nested deeper" },
        { "{% set s = namespace() %}{% set s.s = s %}{{ s }}", "values nested deeper" },
        { "{% set s = namespace(x=[1]) %}{% for i in range(64) %}{% set s.x = [s.x, s.x] %}"
          "{% endfor %}{{ s.x }}",
          "limit" },
        { "{{ '%999999999d' % 1 }}", "wider than the limit" },
        { "{{ '%*d' % (999999999, 1) }}", "wider than the limit" },
        { "{{ '{:999999999}'.format(1) }}", "wider than the limit" },
        { "{{ 'a'.center(999999999999) }}", "limit" },
        { "{{ 'a'|center(999999999999) }}", "limit" },
        { "{{ 'a'.zfill(999999999999) }}", "limit" },
        { "{{ '\\t'.expandtabs(999999999999) }}", "limit" },
        { "{{ 'a\\nb'|indent(999999999999) }}", "over the limit" },
        { "{{ [1]|tojson(indent=999999999999) }}", "over the limit" },
        { "{{ [1]|batch(99999999999, 0)|list }}", "limit" },
        { "{{ [1]|slice(99999999999)|list }}", "limit" },
        { "{% set x = ('a' * 99999) %}{% for i in range(99999) %}{% if x == 'a' * 99999 %}"
          "{% endif %}{% endfor %}",
          "limit" },
        { "{% set x = 'a' * 999 * 999 %}{% for i in range(9999) %}{% if 'b' in x %}{% endif %}"
          "{% endfor %}",
          "steps" },
        { "{% set x = ('a' * 99999) %}{% for i in range(99999) %}"
          "{% if x.rfind('b' ~ x[1:50000]) %}{% endif %}{% endfor %}",
          "limit" },
        { "{% set x = '\xC3\xA9' * 999 * 999 %}{% for i in range(99999) %}{{ x[-1] }}{% endfor %}",
          "limit" },
        { "{% set x = ('a' * 9999).split('a') %}{% for i in range(99999) %}{% if 1 in x %}"
          "{% endif %}{% endfor %}",
          "steps" },
        { "{% for i in range(99999) %}{% set x = 'x' * 99999 %}{% endfor %}", "limit" },
        { "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}", "limit" },
        { "{% for i in range(99999) %}{{ strftime_now('%c' * 999) }}{% endfor %}", "steps" },
        { "{% for i in range(99999) %}{% set x = range(99999)|list|sort %}{% endfor %}", "limit" },
        { "{% for i in range(99999) %}{{ ('a' * 9999).replace('', 'b')|length }}{% endfor %}",
          "limit" },
        { "{% for i in range(99999) %}{{ ('1' * 300)|float }}{{ 1 / 3 }}{% endfor %}", "limit" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        test_row(t, "%s", rows[i].chat_template);
        rendered r = render_simple(rows[i].chat_template, one_message);
        CHECK(t, !r.ok && r.text.size == 0);
        CHECK_ERROR(t, &r.err, DP_E_LIMIT, rows[i].part);
        free_rendered(&r);
    }
}

/* Repeats a text `n` times behind a start and in front of an end. */
static char *nested_text(test *t, const char *start, const char *text, size_t n, const char *end) {
    const size_t size = strlen(start) + strlen(end) + n * strlen(text) + 1;
    char *out = test_alloc(t, size, 1), *at = out;
    memcpy(at, start, strlen(start));
    at += strlen(start);
    for (size_t i = 0; i < n; i++, at += strlen(text))
        memcpy(at, text, strlen(text));
    memcpy(at, end, strlen(end));
    return out;
}

static void deep_nesting_is_refused(test *t) {
    static const struct {
        const char *start, *text, *end;
    } rows[] = {
        { "{{ ", "(", "1 }}" },
        { "{{ ", "[", "1 }}" },
        { "{{ ", "{1:", "1 }}" },
        { "{{ ", "-", "1 }}" },
        { "{{ ", "1 if 1 else ", "1 }}" },
        { "{{ ", "f(", "1 }}" },
        { "{{ ", "a[", "1 }}" },
        { "{{ 1 ", "+ 1 ", "}}" }, /* a tree as deep as it is long */
        { "{{ 1 ", "and 1 ", "}}" },
        { "{{ 'a'", "|upper", "}}" },
        { "{{ messages", "[0:]", "}}" },
        { "{% set x = {} %}{{ x", ".copy()", "}}" },
        { "", "{% if true %}", "x" },
        { "", "{% for i in [1] %}", "x" },
        { "", "{% macro m() %}", "x" },
        { "", "{% filter upper %}", "x" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *text = nested_text(t, rows[i].start, rows[i].text, 5000, rows[i].end);
        test_row(t, "%s%s", rows[i].start, rows[i].text);
        rendered r = render_simple(text, one_message);
        CHECK(t, !r.ok);
        CHECK_MSG(t, r.err.status == DP_E_LIMIT, "%s", r.err.message);
        free_rendered(&r);
    }
}

/* Length alone is no reason to refuse, and an elif more is not a level more. */
static void long_templates_render(test *t) {
    static const struct {
        const char *start, *text, *end;
        size_t size;
    } rows[] = {
        { "", "{{ 1 }}", "", 5000 },
        { "{{ 1 ", "~ 1 ", "}}", 5001 },
        { "{% if 0 %}", "{% elif 0 %}", "{% else %}x{% endif %}", 1 },
        { "{{ 1 if ", "not ", "0 }}", 1 - 1 },
        { "{% set x = [", "1, ", "] %}{{ x | length }}", 4 },
        { "", "{% if true %}{{ messages[0].content[0] }}{% endif %}", "", 5000 },
        { "{{ [", "'a' 'b',", "] | join }}", 10000 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *text = nested_text(t, rows[i].start, rows[i].text, 5000, rows[i].end);
        test_row(t, "%s%s", rows[i].start, rows[i].text);
        rendered r = render_simple(text, one_message);
        CHECK_MSG(t, r.ok, "%s", r.err.message);
        CHECK_U64(t, r.text.size, rows[i].size);
        free_rendered(&r);
    }
}

/* The ceilings grow with the input: a long conversation is no attack. */
static void long_conversations_render(test *t) {
    buf messages;
    buf_init(&messages, 1 << 26);
    for (int i = 0; i < 4000; i++) {
        buf_printf(&messages, "%s{\"role\": \"%s\", \"content\": \"%0400d\"}", i > 0 ? "," : "[",
                   i % 2 == 0 ? "user" : "assistant", i);
    }
    buf_add_str(&messages, STR("]"));
    const chat_input in = { .messages = { messages.data, messages.size }, .now = NOW };
    rendered r = render(STR("{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}"
                            "{% if m.role == 'user' and m.content is string %}"
                            "{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.n }}"
                            "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 "
                            "== 0) %}{{ raise_exception('order') }}{% endif %}"
                            "{% set content = m.content | trim %}{{ '<|' + m.role + '|>' + content "
                            "+ '\\n' }}{% endfor %}"),
                        &in);
    CHECK_MSG(t, r.ok, "%s", r.err.message);
    CHECK_U64(t, r.text.size, 4 + 4000 * (400 + 5) + 2000 * (4 + 9));
    free_rendered(&r);
    buf_free(&messages);
}

static void a_full_buffer_is_an_error(test *t) {
    const chat_input in = { .messages = STR("[]"), .now = NOW };
    for (size_t room = 8; room <= 11; room++) {
        dp_error err = { 0 };
        buf text, marks;
        test_row(t, "%zu", room);
        buf_init(&text, room == 11 ? 11 : room);
        buf_init(&marks, room == 10 ? 6 : 11); /* 10: enough for the text, not for the marks */
        buf_add_str(&text, STR("abc"));
        const bool ok = chat_render(STR("1234567"), "x", &in, &text, &marks, &err);
        CHECK(t, ok == (room == 11));
        CHECK_STR(t, ((str){ text.data, text.size }), ok ? "abc1234567" : "abc");
        if (!ok) CHECK_ERROR(t, &err, DP_E_LIMIT, "over the limit");
        buf_free(&text);
        buf_free(&marks);
    }
    dp_error err = { 0 };
    buf text;
    buf_init(&text, 100);
    CHECK(t, chat_render(STR("{{ messages }}"), "x", &in, &text, NULL, &err));
    CHECK_STR(t, ((str){ text.data, text.size }), "[]");
    CHECK(t, !chat_render(STR("{{"), "x", &in, &text, NULL, NULL));
    buf_free(&text);
}

/* bos and eos that a tokenizer does not have are undefined, as for transformers. */
static void missing_special_tokens_are_undefined(test *t) {
    const chat_input in = { .messages = STR("[]"), .now = NOW };
    rendered r =
        render(STR("{{ bos_token }}{{ bos_token is defined }}{{ eos_token is defined }}"
                   "{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}"),
               &in);
    CHECK_STR(t, text_of(&r), "FalseFalseTrueTrueFalse");
    free_rendered(&r);
    r = render(STR("{{ bos_token + 'x' }}"), &in);
    CHECK_ERROR(t, &r.err, DP_E_FORMAT, "'bos_token' is undefined");
    free_rendered(&r);
}

static void times_are_utc(test *t) {
    static const struct {
        int64_t now;
        const char *text;
    } rows[] = {
        { 0, "1970-01-01 00:00:00 Thu 001 01 1970" },
        { -1, "1969-12-31 23:59:59 Wed 365 01 1970" },
        { 951782400, "2000-02-29 00:00:00 Tue 060 09 2000" },
        { 4107542399, "2100-02-28 23:59:59 Sun 059 08 2100" }, /* no leap year */
        { 1767225599, "2025-12-31 23:59:59 Wed 365 01 2026" },
        { 1609459199, "2020-12-31 23:59:59 Thu 366 53 2020" },
        { 253402300799, "9999-12-31 23:59:59 Fri 365 52 9999" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const chat_input in = { .messages = STR("[]"), .now = rows[i].now };
        test_row(t, "%lld", (long long)rows[i].now);
        rendered r = render(STR("{{ strftime_now('%Y-%m-%d %H:%M:%S %a %j %V %G') }}"), &in);
        CHECK_STR(t, text_of(&r), rows[i].text);
        free_rendered(&r);
    }
}

static const test_case cases[] = {
    { "published styles render as transformers does",
      published_styles_render_as_transformers_does },
    { "the language is that of jinja2", the_language_is_that_of_jinja2 },
    { "marks follow every operation", marks_follow_every_operation },
    { "only usual roles are the template's", only_usual_roles_are_the_templates },
    { "errors name line and reason", errors_name_line_and_reason },
    { "bad input is refused", bad_input_is_refused },
    { "hostile templates end at a ceiling", hostile_templates_end_at_a_ceiling },
    { "deep nesting is refused", deep_nesting_is_refused },
    { "long templates render", long_templates_render },
    { "long conversations render", long_conversations_render },
    { "a full buffer is an error", a_full_buffer_is_an_error },
    { "missing special tokens are undefined", missing_special_tokens_are_undefined },
    { "times are UTC", times_are_utc },
};

const test_group chat_tests = { "chat", cases, ARRAY_LEN(cases) };
