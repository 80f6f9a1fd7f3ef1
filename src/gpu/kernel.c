/* kernel: joins kernel texts with their fragments and makes pipelines.
 *
 * A kernel's bindings are those of its file and of its fragments; the bind group layout comes from
 * these tables and not from the shader, so that kernels with equal bindings share bind groups.
 * Module and pipeline are made inside error scopes: a fault in a shader is a message of this
 * kernel. Where the implementation compiles in the background (all but wgpu-native) nothing waits
 * until a plan is finished. */
#include "gpu/gpu_internal.h"

#include <stdio.h>

enum { CONSTS_MAX = 32, TEXT_MAX = 1024 * 1024, KERNELS_MAX = 4096 };

/* ---- text ---------------------------------------------------------------------------------- */

void gpu_kernel_text(const gpu *g, const gpu_source *source, const gpu_fragment *const *fragments,
                     buf *out) {
    bool f16 = source->needs_f16, subgroups = source->needs_subgroups;
    for (uint32_t i = 0; i < source->n_slots; i++) {
        f16 |= fragments[i]->needs_f16;
        subgroups |= fragments[i]->needs_subgroups;
    }
    /* On the kernel's first line, so that line numbers in messages are those of its file. */
    if (f16) buf_printf(out, "enable f16; ");
    /* naga rejects the line that the standard demands. */
    if (subgroups && (g == NULL || g->api.kind != LIBRARY_WGPU)) {
        buf_printf(out, "enable subgroups; ");
    }
    buf_add_str(out, str_of(source->text));
    for (uint32_t i = 0; i < source->n_slots; i++)
        buf_add_str(out, str_of(fragments[i]->text));
}

static void write_label(gpu_kernel *k) {
    size_t n = (size_t)snprintf(k->label, sizeof(k->label), "%s", k->source->name);
    for (uint32_t i = 0; i < k->source->n_slots && n < sizeof(k->label); i++) {
        n += (size_t)snprintf(k->label + n, sizeof(k->label) - n, " %s", k->fragments[i]->name);
    }
}

/* ---- layouts ------------------------------------------------------------------------------- */

static void collect_bindings(gpu_kernel *k, const gpu_binding *bindings, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t at = bindings[i].binding;
        assert(at < GPU_BINDINGS);
        assert((k->used >> at & 1) == 0); /* embed checks all combinations */
        k->used |= 1u << at;
        k->access |= (uint32_t)bindings[i].access << (2 * at);
    }
}

static WGPUBindGroupLayout make_params_layout(gpu *g) {
    const WGPUBindGroupLayoutEntry uniform = {
        .binding = 0,
        .visibility = WGPUShaderStage_Compute,
        .buffer = { .type = WGPUBufferBindingType_Uniform, .hasDynamicOffset = true },
    };
    const WGPUBindGroupLayoutDescriptor d = { .entryCount = 1, .entries = &uniform };
    return g->api.DeviceCreateBindGroupLayout(g->device, &d);
}

static const gpu_layout *find_layout(gpu *g, uint32_t used, uint32_t access, dp_error *err) {
    for (size_t i = 0; i < g->n_layouts; i++) {
        if (g->layouts[i].used == used && g->layouts[i].access == access) return &g->layouts[i];
    }
    assert(g->n_layouts < LAYOUTS);
    static const WGPUBufferBindingType types[] = { WGPUBufferBindingType_ReadOnlyStorage,
                                                   WGPUBufferBindingType_Storage,
                                                   WGPUBufferBindingType_Uniform };
    WGPUBindGroupLayoutEntry entries[GPU_BINDINGS] = { 0 };
    size_t n = 0;
    for (uint32_t at = 0; at < GPU_BINDINGS; at++) {
        if ((used >> at & 1) == 0) continue;
        entries[n].binding = at;
        entries[n].visibility = WGPUShaderStage_Compute;
        entries[n++].buffer.type = types[access >> (2 * at) & 3];
    }
    const uint32_t scopes = scope_begin(g);
    if (g->params_layout == NULL) g->params_layout = make_params_layout(g);
    const WGPUBindGroupLayoutDescriptor d = { .entryCount = n, .entries = entries };
    gpu_layout *l = &g->layouts[g->n_layouts];
    *l = (gpu_layout){ .used = used, .access = access };
    l->group = g->api.DeviceCreateBindGroupLayout(g->device, &d);
    const WGPUBindGroupLayout groups[] = { l->group, g->params_layout };
    WGPUPipelineLayoutDescriptor p = { .bindGroupLayoutCount = 1, .bindGroupLayouts = groups };
    l->plain = g->api.DeviceCreatePipelineLayout(g->device, &p);
    p.bindGroupLayoutCount = 2;
    l->with_params = g->api.DeviceCreatePipelineLayout(g->device, &p);
    g->n_layouts++;
    return scope_end(g, scopes, err) ? l : NULL;
}

/* ---- making -------------------------------------------------------------------------------- */

static void on_pipeline(WGPUCreatePipelineAsyncStatus status, WGPUComputePipeline pipeline,
                        WGPUStringView message, void *user, void *unused) {
    (void)unused;
    gpu_kernel *k = user;
    k->pending--;
    if (status == WGPUCreatePipelineAsyncStatus_Success) {
        k->pipeline = pipeline;
        return;
    }
    char text[400];
    view_copy(text, sizeof(text), message);
    err_set(&k->err, DP_E_DEVICE, "%s", text);
}

static bool make_module(gpu_kernel *k, dp_error *err) {
    gpu *g = k->g;
    buf text;
    buf_init(&text, TEXT_MAX);
    gpu_kernel_text(g, k->source, k->fragments, &text);
    if (!buf_ok(&text, k->label, err)) {
        buf_free(&text);
        return false;
    }
    WGPUShaderSourceWGSL wgsl = { .chain = { .sType = WGPUSType_ShaderSourceWGSL },
                                  .code = { text.data, text.size } };
    const WGPUShaderModuleDescriptor d = { .nextInChain = &wgsl.chain, .label = view_of(k->label) };
    k->owns_module = true;
    /* Dawn without validation (library.c) takes a pipeline of a faulty module for granted and dies
     * of it, so the module's verdict comes first; it is there at once. */
    const uint32_t scopes = scope_begin(g);
#ifdef DP_DEBUG
    const bool checked = true;
#else
    /* Our own kernels: every index follows from sizes, tokens and pages that the host checked. */
    const bool checked = g->api.kind != LIBRARY_WGPU;
#endif
    if (!checked) {
        k->module =
            g->api.DeviceCreateShaderModuleTrusted(g->device, &d, WGPUShaderRuntimeChecks_None);
    } else {
        k->module = g->api.DeviceCreateShaderModule(g->device, &d);
    }
    buf_free(&text);
    if (scope_end(g, scopes, err)) return k->module != NULL;
    if (k->module != NULL) g->api.ShaderModuleRelease(k->module);
    k->module = NULL;
    return false;
}

static size_t list_constants(const gpu_kernel *k, WGPUConstantEntry *out) {
    const gpu_source *s = k->source;
    for (uint32_t i = 0; i < s->n_consts; i++) {
        const unsigned char *at = k->consts + s->consts[i].offset;
        uint32_t u;
        int32_t n;
        float f;
        double value = 0;
        switch (s->consts[i].type) {
        case GPU_CONST_U32:
            memcpy(&u, at, sizeof(u)), value = u;
            break;
        case GPU_CONST_I32:
            memcpy(&n, at, sizeof(n)), value = n;
            break;
        case GPU_CONST_F32:
            memcpy(&f, at, sizeof(f)), value = (double)f;
            break;
        case GPU_CONST_BOOL:
            value = *at != 0;
            break;
        }
        assert(value - value == 0); /* WebGPU takes neither NaN nor infinities */
        out[i] = (WGPUConstantEntry){ .key = view_of(s->consts[i].name), .value = value };
    }
    return s->n_consts;
}

static void make_pipeline(gpu_kernel *k) {
    gpu *g = k->g;
    const WGPUPipelineLayout layout =
        k->source->params_size > 0 ? k->layout->with_params : k->layout->plain;
    WGPUConstantEntry constants[CONSTS_MAX];
    WGPUComputePipelineDescriptor d = {
        .label = view_of(k->label),
        .layout = layout,
        .compute = { .module = k->module,
                     .entryPoint = view_of(k->source->name),
                     .constants = constants },
    };
    d.compute.constantCount = list_constants(k, constants);
    g->stats.pipelines++;
    if (g->api.kind != LIBRARY_WGPU) {
        const WGPUCreateComputePipelineAsyncCallbackInfo info = {
            .mode = WGPUCallbackMode_AllowProcessEvents, .callback = on_pipeline, .userdata1 = k
        };
        k->pending++;
        k->future = g->api.DeviceCreateComputePipelineAsync(g->device, &d, info);
        return;
    }
    const uint32_t scopes = scope_begin(g);
    k->pipeline = g->api.DeviceCreateComputePipeline(g->device, &d);
    if (scope_end(g, scopes, &k->err) || k->pipeline == NULL) return;
    g->api.ComputePipelineRelease(k->pipeline);
    k->pipeline = NULL;
}

/* ---- cache --------------------------------------------------------------------------------- */

static bool is_same_text(const gpu_kernel *k, const gpu_source *source,
                         const gpu_fragment *const *fragments) {
    if (k->source != source) return false;
    for (uint32_t i = 0; i < source->n_slots; i++) {
        if (k->fragments[i] != fragments[i]) return false;
    }
    return true;
}

/* Field by field: padding of the caller's struct may hold anything. */
static bool are_same_consts(const gpu_kernel *k, const void *consts) {
    for (uint32_t i = 0; i < k->source->n_consts; i++) {
        const gpu_const *c = &k->source->consts[i];
        const size_t size = c->type == GPU_CONST_BOOL ? sizeof(bool) : 4;
        if (memcmp(k->consts + c->offset, (const char *)consts + c->offset, size) != 0)
            return false;
    }
    return true;
}

static void check_fragments(const gpu *g, const gpu_source *s,
                            const gpu_fragment *const *fragments) {
    assert(s->n_slots <= GPU_SLOTS && s->n_consts <= CONSTS_MAX);
    assert(s->params_size <= PARAMS_SLOT);
    assert(s->n_slots == 0 || fragments != NULL);
    assert(!s->needs_f16 || g->info.f16);
    assert(!s->needs_subgroups || g->info.subgroups);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        assert(fragments[i] != NULL && strcmp(fragments[i]->slot, s->slots[i]) == 0);
        assert(fragments[i]->n_consts == 0);
        assert(!fragments[i]->needs_f16 || g->info.f16);
        assert(!fragments[i]->needs_subgroups || g->info.subgroups);
    }
    (void)g;
}

static gpu_kernel *add_kernel(gpu *g, const gpu_source *source,
                              const gpu_fragment *const *fragments, const void *consts,
                              dp_error *err) {
    assert(g->n_kernels < KERNELS_MAX);
    if (g->n_kernels == g->max_kernels) {
        const size_t max = g->max_kernels > 0 ? g->max_kernels * 2 : 64;
        gpu_kernel **list = mem_resize(g->kernels, max, sizeof(*list), "kernels", err);
        if (list == NULL) return NULL;
        g->kernels = list;
        g->max_kernels = max;
    }
    gpu_kernel *k = mem_new(1, sizeof(*k) + source->consts_size, "a kernel", err);
    if (k == NULL) return NULL;
    k->g = g;
    k->source = source;
    for (uint32_t i = 0; i < source->n_slots; i++)
        k->fragments[i] = fragments[i];
    if (source->consts_size > 0) memcpy(k->consts, consts, source->consts_size);
    write_label(k);
    collect_bindings(k, source->bindings, source->n_bindings);
    for (uint32_t i = 0; i < source->n_slots; i++) {
        collect_bindings(k, fragments[i]->bindings, fragments[i]->n_bindings);
    }
    g->kernels[g->n_kernels++] = k;
    return k;
}

const gpu_kernel *gpu_kernel_get(gpu *g, const gpu_source *source,
                                 const gpu_fragment *const *fragments, const void *consts,
                                 dp_error *err) {
    check_fragments(g, source, fragments);
    assert(source->n_consts == 0 || consts != NULL);
    WGPUShaderModule shared = NULL; /* of a kernel with the same text and other constants */
    for (size_t i = 0; i < g->n_kernels; i++) {
        if (!is_same_text(g->kernels[i], source, fragments)) continue;
        if (are_same_consts(g->kernels[i], consts)) return g->kernels[i];
        if (g->kernels[i]->module != NULL) shared = g->kernels[i]->module;
    }
    gpu_kernel *k = add_kernel(g, source, fragments, consts, err);
    if (k == NULL) return NULL;
    if (!gpu_ok(g, &k->err)) return k;
    k->layout = find_layout(g, k->used, k->access, &k->err);
    if (k->layout == NULL) return k;
    if (shared != NULL || make_module(k, &k->err)) {
        if (shared != NULL) k->module = shared;
        make_pipeline(k);
    }
    return k;
}

bool kernel_wait(const gpu_kernel *k, dp_error *err) {
    gpu *g = k->g;
    while (k->pending > 0 && !atomic_load(&g->lost))
        gpu_block(g, k->future, NULL);
    if (k->err.status == DP_OK && k->pipeline != NULL) return true;
    if (!gpu_ok(g, err)) return false;
    return err_set(err, DP_E_DEVICE, "kernel %s: %s", k->label,
                   k->err.status != DP_OK ? k->err.message : "the device makes no pipeline of it");
}

bool gpu_kernels_wait(gpu *g, dp_error *err) {
    for (size_t i = 0; i < g->n_kernels; i++) {
        if (!kernel_wait(g->kernels[i], err)) return false;
    }
    return gpu_ok(g, err);
}

void kernels_close(gpu *g) {
    for (size_t i = 0; i < g->n_kernels; i++) {
        const gpu_kernel *k = g->kernels[i];
        /* A callback still to come would write into the kernel. */
        while (k->pending > 0)
            gpu_block(g, k->future, NULL);
    }
    for (size_t i = 0; i < g->n_kernels; i++) {
        gpu_kernel *k = g->kernels[i];
        if (k->pipeline != NULL) g->api.ComputePipelineRelease(k->pipeline);
        if (k->owns_module && k->module != NULL) g->api.ShaderModuleRelease(k->module);
        mem_free(k);
    }
    mem_free(g->kernels);
    g->kernels = NULL;
    g->n_kernels = 0;
    for (size_t i = 0; i < g->n_layouts; i++) {
        g->api.PipelineLayoutRelease(g->layouts[i].with_params);
        g->api.PipelineLayoutRelease(g->layouts[i].plain);
        g->api.BindGroupLayoutRelease(g->layouts[i].group);
    }
    g->n_layouts = 0;
    if (g->params_layout != NULL) g->api.BindGroupLayoutRelease(g->params_layout);
    g->params_layout = NULL;
}
