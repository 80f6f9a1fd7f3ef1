/* jinja_globals: the functions that every template sees, and the time.
 *
 * range, dict, namespace, cycler and joiner are jinja2's; raise_exception and strftime_now are what
 * transformers adds. Times are UTC, names of days and months English, whatever the locale. */
#include "text/jinja_internal.h"

#include <stdio.h>

/* ---- strftime ------------------------------------------------------------------------------ */

typedef struct {
    int64_t year;
    int month, day, hour, minute, second, weekday, yearday; /* month 1.., weekday 0 Sunday */
} calendar;

static const char *const day_names[] = { "Sunday",   "Monday", "Tuesday", "Wednesday",
                                         "Thursday", "Friday", "Saturday" };
static const char *const month_names[] = { "January",   "February", "March",    "April",
                                           "May",       "June",     "July",     "August",
                                           "September", "October",  "November", "December" };

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

/* Days since 1970 of a date; months count from March, so that a leap day ends the year. */
static int64_t days_of(int64_t year, int month, int day) {
    const int64_t y = year - (month <= 2), era = floor_div(y, 400), of_era = y - era * 400;
    const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719468;
}

static calendar calendar_of(int64_t seconds) {
    const int64_t days = floor_div(seconds, 86400), left = seconds - days * 86400;
    calendar c = { .hour = (int)(left / 3600),
                   .minute = (int)(left / 60 % 60),
                   .second = (int)(left % 60) };
    const int64_t shifted = days + 719468, era = floor_div(shifted, 146097);
    const int64_t of_era = shifted - era * 146097;
    const int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    const int64_t day = of_era - (365 * year + year / 4 - year / 100);
    const int64_t month = (5 * day + 2) / 153;
    c.day = (int)(day - (153 * month + 2) / 5 + 1);
    c.month = (int)(month < 10 ? month + 3 : month - 9);
    c.year = year + era * 400 + (c.month <= 2);
    c.weekday = (int)(((days + 4) % 7 + 7) % 7);
    c.yearday = (int)(days - days_of(c.year, 1, 1)) + 1;
    return c;
}

/* The ISO 8601 week and the year that it belongs to. */
static int iso_week(const calendar *c, int64_t *year) {
    const int64_t today = days_of(c->year, c->month, c->day);
    const int64_t thursday = today - (c->weekday + 6) % 7 + 3;
    *year = calendar_of(thursday * 86400).year;
    return (int)((thursday - days_of(*year, 1, 1)) / 7) + 1;
}

typedef struct {
    char text[128];
    char flag; /* '-', '_', '0', '^' or '\0' */
} time_field;

static void time_number(time_field *f, int64_t n, int width, bool spaces) {
    const char flag = f->flag == '_' || (spaces && f->flag == '\0') ? '_' : f->flag;
    if (flag == '-') width = 1;
    snprintf(f->text, sizeof(f->text), flag == '_' ? "%*lld" : "%0*lld", width, (long long)n);
}

static void put_time(jinja *j, jout *out, const calendar *c, const jtext *format, int depth);

static void put_nested_time(jinja *j, jout *out, const calendar *c, const char *format) {
    put_time(j, out, c, jinja_text_of(j, format).text, 1);
}

/* One conversion; false if it is none. */
static bool put_time_field(jinja *j, jout *out, const calendar *c, char letter, char flag) {
    time_field f = { .flag = flag };
    const int hour12 = c->hour % 12 == 0 ? 12 : c->hour % 12;
    const int monday = (c->weekday + 6) % 7;
    int64_t iso_year;
    const int week = iso_week(c, &iso_year);
    static const struct {
        char letter;
        const char *format;
    } nested[] = { { 'D', "%m/%d/%y" },    { 'F', "%Y-%m-%d" },
                   { 'R', "%H:%M" },       { 'T', "%H:%M:%S" },
                   { 'r', "%I:%M:%S %p" }, { 'x', "%m/%d/%y" },
                   { 'X', "%H:%M:%S" },    { 'c', "%a %b %e %H:%M:%S %Y" } };
    for (size_t i = 0; i < ARRAY_LEN(nested); i++) {
        if (nested[i].letter != letter) continue;
        put_nested_time(j, out, c, nested[i].format);
        return true;
    }
    const struct {
        char letter;
        int64_t value;
        int width;
        bool spaces;
    } numbers[] = {
        { 'Y', c->year, 1, false },
        { 'm', c->month, 2, false },
        { 'd', c->day, 2, false },
        { 'e', c->day, 2, true },
        { 'H', c->hour, 2, false },
        { 'k', c->hour, 2, true },
        { 'I', hour12, 2, false },
        { 'l', hour12, 2, true },
        { 'M', c->minute, 2, false },
        { 'S', c->second, 2, false },
        { 'j', c->yearday, 3, false },
        { 'y', ((c->year % 100) + 100) % 100, 2, false },
        { 'C', floor_div(c->year, 100), 2, false },
        { 'w', c->weekday, 1, false },
        { 'u', monday + 1, 1, false },
        { 'U', (c->yearday + 6 - c->weekday) / 7, 2, false },
        { 'W', (c->yearday + 6 - monday) / 7, 2, false },
        { 'V', week, 2, false },
        { 'G', iso_year, 1, false },
        { 'g', ((iso_year % 100) + 100) % 100, 2, false },
        { 'f', 0, 6, false }, /* microseconds, which `now` has not */
        { 's', j->now, 1, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (numbers[i].letter != letter) continue;
        time_number(&f, numbers[i].value, numbers[i].width, numbers[i].spaces);
        jinja_put_str(j, out, f.text);
        return true;
    }
    const char *text = letter == 'A'                    ? day_names[c->weekday]
                       : letter == 'a'                  ? day_names[c->weekday]
                       : letter == 'B'                  ? month_names[c->month - 1]
                       : letter == 'b'                  ? month_names[c->month - 1]
                       : letter == 'h'                  ? month_names[c->month - 1]
                       : letter == 'p'                  ? (c->hour < 12 ? "AM" : "PM")
                       : letter == 'P'                  ? (c->hour < 12 ? "am" : "pm")
                       : letter == 'n'                  ? "\n"
                       : letter == 't'                  ? "\t"
                       : letter == '%'                  ? "%"
                       : letter == 'Z' || letter == 'z' ? "" /* a time without a zone */
                                                        : NULL;
    if (text == NULL) return false;
    const bool brief = letter == 'a' || letter == 'b' || letter == 'h';
    jvalue v = jinja_text(j, text, brief ? 3 : strlen(text), false);
    if (flag == '^') v = jinja_case(j, v.text, CASE_UPPER);
    jinja_put_value(j, out, v);
    return true;
}

static void put_time(jinja *j, jout *out, const calendar *c, const jtext *format, int depth) {
    for (size_t i = 0; i < format->size && !j->failed;) {
        const size_t start = i++;
        bool known = false;
        jinja_charge(j, 4);
        if (format->data[start] == '%') {
            char flag = '\0';
            if (i < format->size && strchr("-_0^", format->data[i]) != NULL) {
                flag = format->data[i++];
            }
            if (i < format->size && format->data[i] != '\0') {
                known = put_time_field(j, out, c, format->data[i], depth > 0 ? '\0' : flag);
                if (known) i++;
            }
        }
        if (!known) jinja_put_part(j, out, format, start, i);
    }
}

static jvalue global_strftime_now(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)self, (void)call;
    jout out = { 0 };
    if (args[0].kind != V_TEXT) return jinja_wrong(j, "strftime_now: a format that is no text");
    const calendar now = calendar_of(j->now);
    put_time(j, &out, &now, args[0].text, 0);
    return jinja_finish(j, &out);
}

/* ---- the others ---------------------------------------------------------------------------- */

static jvalue global_raise_exception(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)self, (void)call;
    const jtext *t = jinja_string(j, args[0]);
    jinja_fail(j, DP_E_ARGUMENT, "%.*s", t->size < 250 ? (int)t->size : 250, t->data);
    return jinja_none();
}

static jvalue global_range(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)self, (void)call;
    jrange *r = jinja_take(j, 1, sizeof(jrange));
    if (r == NULL) return jinja_none();
    int64_t numbers[3] = { 0, 0, 1 };
    for (size_t i = 0; i < 3; i++) {
        if (args[i].kind == V_ABSENT) continue;
        if (args[i].kind == V_UNDEFINED) return jinja_use_undefined(j, args[i]);
        if (!jinja_is_integer(args[i])) {
            return jinja_wrong(j, "range of a %s", jinja_type(args[i]));
        }
        numbers[i] = jinja_integer(args[i]);
    }
    if (args[1].kind == V_ABSENT) {
        numbers[1] = numbers[0];
        numbers[0] = 0;
    }
    *r = (jrange){ .start = numbers[0], .stop = numbers[1], .step = numbers[2] };
    if (r->step == 0) return jinja_wrong(j, "range: a step of zero");
    const bool up = r->step > 0;
    if (up ? r->start < r->stop : r->start > r->stop) {
        const uint64_t span =
            up ? (uint64_t)r->stop - (uint64_t)r->start : (uint64_t)r->start - (uint64_t)r->stop;
        const uint64_t stride = up ? (uint64_t)r->step : 0 - (uint64_t)r->step;
        r->n = (span - 1) / stride + 1;
    }
    if (r->n > JINJA_RANGE_MAX) {
        jinja_fail(j, DP_E_LIMIT, "a range of %llu elements, the limit is %d",
                   (unsigned long long)r->n, JINJA_RANGE_MAX);
    }
    return (jvalue){ .kind = V_RANGE, .range = r };
}

/* The dict of dict(...) and namespace(...): another one or pairs, and keywords. */
static jdict *dict_of_call(jinja *j, const jcall *call) {
    jdict *d = jinja_dict(j);
    if (call->n > 1) jinja_wrong(j, "dict: more than one argument by place");
    if (call->n == 1 && call->at[0].kind == V_DICT) {
        const jdict *other = call->at[0].dict;
        for (size_t i = 0; i < other->n && !j->failed; i++) {
            jinja_dict_put(j, d, other->keys[i], other->values[i]);
        }
    } else if (call->n == 1) {
        jvalue pair;
        for (jwalk walk = jinja_walk(j, call->at[0]); jinja_next(j, &walk, &pair);) {
            const jlist *both = jinja_to_list(j, pair);
            if (both->n != 2) {
                jinja_wrong(j, "dict: an element that is no pair");
                break;
            }
            jinja_dict_put(j, d, both->at[0], both->at[1]);
        }
    }
    for (size_t i = 0; i < call->n_keys && !j->failed; i++) {
        jinja_dict_put(j, d, (jvalue){ .kind = V_TEXT, .text = call->keys[i].name },
                       call->keys[i].v);
    }
    return d;
}

static jvalue global_dict(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)self, (void)args;
    return (jvalue){ .kind = V_DICT, .dict = dict_of_call(j, call) };
}

/* transformers keeps what begins with an underscore out of namespaces. */
static void check_space_name(jinja *j, jvalue name) {
    if (name.kind == V_TEXT && name.text->size > 0 && name.text->data[0] == '_') {
        jinja_wrong(j, "a namespace has no attributes that begin with an underscore ('%.*s')",
                    STR_ARG(jinja_str(name.text)));
    }
}

void jinja_space_put(jinja *j, jspace *space, jvalue name, jvalue v) {
    check_space_name(j, name);
    jinja_dict_put(j, space->dict, name, v);
}

static jvalue global_namespace(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)self, (void)args;
    jspace *space = jinja_take(j, 1, sizeof(jspace));
    if (space == NULL) return jinja_none();
    space->dict = dict_of_call(j, call);
    for (size_t i = 0; i < space->dict->n; i++)
        check_space_name(j, space->dict->keys[i]);
    return (jvalue){ .kind = V_SPACE, .space = space };
}

static jvalue global_cycler(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)self, (void)args;
    jcycler *cycler = jinja_take(j, 1, sizeof(jcycler));
    jitems items = { 0 };
    if (call->n == 0) return jinja_wrong(j, "cycler without elements");
    if (call->n_keys > 0) return jinja_wrong(j, "cycler with names");
    for (size_t i = 0; i < call->n; i++)
        jinja_push(j, &items, call->at[i]);
    if (cycler == NULL || j->failed) return jinja_none();
    cycler->list = jinja_list(j, &items, V_LIST).list;
    return (jvalue){ .kind = V_CYCLER, .cycler = cycler };
}

static jvalue global_joiner(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)self, (void)call;
    jjoiner *joiner = jinja_take(j, 1, sizeof(jjoiner));
    if (joiner == NULL) return jinja_none();
    joiner->separator = args[0].kind == V_ABSENT ? jinja_text_of(j, ", ") : args[0];
    return (jvalue){ .kind = V_JOINER, .joiner = joiner };
}

static jvalue global_lipsum(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)self, (void)call, (void)args;
    jinja_fail(j, DP_E_UNSUPPORTED, "lipsum is not supported");
    return jinja_none();
}

const jglobal jinja_globals[] = {
    { { "range", global_range, "start,stop=,step=,/" } },
    { { "dict", global_dict, NULL } },
    { { "namespace", global_namespace, NULL } },
    { { "cycler", global_cycler, NULL } },
    { { "joiner", global_joiner, "sep=" } },
    { { "lipsum", global_lipsum, NULL } },
    { { "raise_exception", global_raise_exception, "message" } },
    { { "strftime_now", global_strftime_now, "format" } },
};
const size_t n_jinja_globals = ARRAY_LEN(jinja_globals);
