/* fuzz gguf: any bytes as a GGUF file, as a model and as a vocabulary. */
#define _GNU_SOURCE

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(data, size);
    fuzz_container(path, false);
    fuzz_container(path, true);
    return 0;
}
