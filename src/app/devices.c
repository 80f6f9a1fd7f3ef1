/* devices: the adapters that WebGPU offers, their limits and features. */
#include "app/app.h"

#include <inttypes.h>

enum { DEVICES_MAX = 64 };

static void device_json(buf *b, size_t i, const dp_device_info *d) {
    json_item(b);
    buf_printf(b, "{");
    json_count_of(b, "number", i);
    json_text(b, "name", str_of(d->name));
    json_text(b, "vendor", str_of(d->vendor));
    json_text(b, "driver", str_of(d->driver));
    json_text(b, "backend", str_of(d->backend));
    json_text(b, "type", str_of(d->type));
    json_text(b, "library", str_of(d->library));
    json_flag(b, "f16", d->f16);
    json_flag(b, "subgroups", d->subgroups);
    json_flag(b, "timestamps", d->timestamps);
    json_count_of(b, "subgroup_size", d->subgroup_size);
    json_count_of(b, "matrix", d->matrix);
    json_count_of(b, "max_binding", d->max_binding);
    json_count_of(b, "max_buffer", d->max_buffer);
    json_count_of(b, "max_workgroup_memory", d->max_workgroup_memory);
    json_count_of(b, "max_workgroup_lanes", d->max_workgroup_lanes);
    json_count_of(b, "max_storage_buffers", d->max_storage_buffers);
    buf_printf(b, "}");
}

static void device_text(buf *b, size_t i, const dp_device_info *d) {
    buf_printf(b, "%zu  %s\n", i, d->name);
    buf_printf(b, "   %s, %s, by %s%s%s\n", d->type, d->backend, d->library,
               d->driver[0] != '\0' ? ", driver " : "", d->driver);
    buf_printf(b, "   half floats %s, subgroups %s, timestamps %s, matrix units ",
               d->f16 ? "yes" : "no", d->subgroups ? "yes" : "no", d->timestamps ? "yes" : "no");
    if (d->matrix > 0)
        buf_printf(b, "%" PRIu32 " x %" PRIu32 "\n", d->matrix, d->matrix);
    else
        buf_printf(b, "no\n");
    buf_printf(b, "   binding up to %s, buffer up to %s, %" PRIu32 " storage buffers\n",
               show_bytes(d->max_binding).text, show_bytes(d->max_buffer).text,
               d->max_storage_buffers);
    buf_printf(b, "   workgroup up to %" PRIu32 " lanes with %s\n", d->max_workgroup_lanes,
               show_bytes(d->max_workgroup_memory).text);
}

int cmd_devices(const options *o) {
    static dp_device_info list[DEVICES_MAX];
    dp_error err = { 0 };
    size_t n = 0;
    const dp_device_options how = device_options(o);
    if (!dp_device_list(&how, list, DEVICES_MAX, &n, &err)) return fail(&err);
    const size_t shown = n < DEVICES_MAX ? n : DEVICES_MAX;
    buf b;
    buf_init(&b, 1 << 20);
    if (o->json) buf_printf(&b, "[");
    for (size_t i = 0; i < shown; i++) {
        if (o->json) {
            device_json(&b, i, &list[i]);
        } else {
            device_text(&b, i, &list[i]);
        }
    }
    if (o->json) buf_printf(&b, "]\n");
    const int code = out_result(&b);
    if (code != EXIT_OK || n > 0) return code;
    err_set(&err, DP_E_DEVICE, "there is no GPU that WebGPU can use");
    return fail(&err);
}
