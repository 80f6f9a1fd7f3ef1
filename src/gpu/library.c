/* library: opens a WebGPU library at run time and knows how the implementations differ.
 *
 * The standard_entries functions (webgpu.h 1.0) come from any library; wgpu-native and Dawn are
 * recognised by functions that only they have, and only then are their extensions touched. Linking
 * against none of them keeps one binary for all. */
#include "gpu/gpu_internal.h"

#include <dlfcn.h>
#include <stdio.h>

#ifndef DP_WEBGPU_DIRS
#define DP_WEBGPU_DIRS                                                 \
    "" /* folders to search, separated by colons; the build names them \
        */
#endif

#ifdef __APPLE__
static const char *const library_names[] = { "libwgpu_native.dylib",
                                             "libwgpu_native-release.dylib" };
#else
static const char *const library_names[] = { "libwgpu_native.so", "libwgpu_native-release.so" };
#endif

typedef struct {
    const char *name;
    size_t place; /* of the pointer in gpu_api */
} api_entry;

#define X(name) { "wgpu" #name, offsetof(gpu_api, name) },
static const api_entry standard_entries[] = { GPU_FUNCTIONS(X) };
static const api_entry native_entries[] = { GPU_WGPU_FUNCTIONS(X) };
#undef X

/* Copies function pointers by memcpy: C has no conversion from void *, POSIX promises that it
 * works. */
static const char *load_entries(gpu_api *api, void *handle, const api_entry *entries, size_t n) {
    _Static_assert(sizeof(void *) == sizeof(api->CreateInstance), "dlsym's result is the pointer");
    for (size_t i = 0; i < n; i++) {
        void *symbol = dlsym(handle, entries[i].name);
        if (symbol == NULL) return entries[i].name;
        memcpy((char *)api + entries[i].place, &symbol, sizeof(symbol));
    }
    return NULL;
}

/* The library by its name in one of the folders, or as the system's loader finds it. */
static void *search_folders(char *path, size_t size) {
    for (const char *p = DP_WEBGPU_DIRS; *p != '\0';) {
        const size_t n = strcspn(p, ":");
        for (size_t i = 0; n > 0 && i < ARRAY_LEN(library_names); i++) {
            const int length = snprintf(path, size, "%.*s/%s", (int)n, p, library_names[i]);
            if (length < 0 || (size_t)length >= size || !path_is_file(path)) continue;
            void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (handle != NULL) return handle;
        }
        p += n + (p[n] == ':');
    }
    for (size_t i = 0; i < ARRAY_LEN(library_names); i++) {
        snprintf(path, size, "%s", library_names[i]);
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (handle != NULL) return handle;
    }
    return NULL;
}

/* The loader looks a name without a folder up in the system's folders alone: a file of this one is
 * told to it as such. */
static void *open_path(const char *path) {
    char here[1024];
    const int length = snprintf(here, sizeof(here), "./%s", path);
    const bool is_here = strchr(path, '/') == NULL && path_is_file(path) && length > 0 &&
                         (size_t)length < sizeof(here);
    return dlopen(is_here ? here : path, RTLD_NOW | RTLD_LOCAL);
}

bool library_open(gpu_api *api, const char *path, dp_error *err) {
    char found[1024];
    void *handle = path != NULL ? open_path(path) : search_folders(found, sizeof(found));
    if (handle == NULL && path != NULL) {
        const char *why = dlerror();
        return err_set(err, DP_E_DEVICE, "WebGPU library %s cannot be opened: %s", path,
                       why != NULL ? why : "unknown reason");
    }
    if (handle == NULL) {
        return err_set(err, DP_E_DEVICE,
                       "no WebGPU library: %s is neither in \"%s\" nor where the system looks",
                       library_names[0], DP_WEBGPU_DIRS);
    }
    if (path == NULL) path = found;
    *api = (gpu_api){ 0 };
    const char *missing = load_entries(api, handle, standard_entries, ARRAY_LEN(standard_entries));
    if (missing != NULL) {
        err_set(err, DP_E_DEVICE, "%s is no WebGPU library: it has no function %s", path, missing);
        dlclose(handle);
        return false;
    }
    if (dlsym(handle, "wgpuDevicePoll") != NULL) {
        missing = load_entries(api, handle, native_entries, ARRAY_LEN(native_entries));
        if (missing != NULL || api->GetVersion() >> 24 < 29) {
            return err_set(err, DP_E_DEVICE, "%s: wgpu-native %u is too old, version 29 is needed",
                           path, api->GetVersion != NULL ? api->GetVersion() >> 24 : 0);
        }
        api->kind = LIBRARY_WGPU;
        api->SetLogLevel(WGPULogLevel_Off);
    } else if (dlsym(handle, "wgpuDeviceTick") != NULL) {
        api->kind = LIBRARY_DAWN;
        void *symbol = dlsym(handle, "wgpuAdapterPropertiesSubgroupMatrixConfigsFreeMembers");
        memcpy(&api->FreeDawnMatrices, &symbol, sizeof(symbol));
    }
    return true;
}

/* Names and stages as Dawn's Toggles.cpp documents them. Unless a device keeps the checks, indices
 * are taken as they are and workgroup memory is not zeroed: our kernels index what they own and
 * write before they read. */
WGPUChainedStruct *library_toggles(const gpu_api *api, toggles_stage stage, dawn_toggles *storage) {
    enum { STYPE_DAWN_TOGGLES = 0x0005000A }; /* WGPUSType_DawnTogglesDescriptor of dawn/webgpu.h */
    static const char *const instance[] = { "allow_unsafe_apis" };
    static const char *const adapter[] = { "vulkan_enable_f16_on_nvidia",
                                           "use_vulkan_memory_model" };
    static const char *const device[] = {
        "disable_robustness",
        "disable_workgroup_init",
        "disable_polyfills_on_integer_div_and_mod",
        "skip_validation",
    };
    static const char *const off[] = { "timestamp_quantization",
                                       "lazy_clear_resource_on_first_use" };
    if (api->kind != LIBRARY_DAWN) return NULL;
    *storage = (dawn_toggles){ .chain = { .sType = (WGPUSType)STYPE_DAWN_TOGGLES } };
    switch (stage) {
    case TOGGLES_INSTANCE:
        storage->on = instance, storage->n_on = ARRAY_LEN(instance);
        break;
    case TOGGLES_ADAPTER:
        storage->on = adapter, storage->n_on = ARRAY_LEN(adapter);
        break;
    case TOGGLES_DEVICE:
        storage->on = device, storage->n_on = ARRAY_LEN(device);
        /* fall through */
    case TOGGLES_CHECKED:
        storage->off = off, storage->n_off = ARRAY_LEN(off);
        break;
    }
    return &storage->chain;
}
