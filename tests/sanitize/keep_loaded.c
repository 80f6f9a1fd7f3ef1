/* keep_loaded: linked into what is built with sanitizers. A driver keeps memory for the life of the
 * process and is unloaded before it ends; then what it allocated belongs to no library, and
 * tests/lsan.supp can name none. So nothing is unloaded. */
#include <dlfcn.h>

__attribute__((visibility("default"))) int dlclose(void *handle) {
    (void)handle;
    return 0;
}
