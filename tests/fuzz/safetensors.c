/* fuzz safetensors: any text as the header of a safetensors file, with data behind it.
 *
 * The input is "length of data" (one byte, in units of 4) and the header, whose own length is
 * written here, so that the fuzzer does not have to find it; an input that begins with 255 is the
 * file as it stands. */
#define _GNU_SOURCE

#include "tests/fuzz/fuzz.h"

enum { INPUT_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t whole[8 + INPUT_MAX + 4 * 254];
    if (size == 0 || size > INPUT_MAX) return 0;
    const char *path;
    if (data[0] == 255) {
        path = fuzz_file(data + 1, size - 1);
    } else {
        const size_t n = size - 1, n_data = 4 * (size_t)data[0];
        for (int i = 0; i < 8; i++) whole[i] = (uint8_t)(n >> 8 * i);
        memcpy(whole + 8, data + 1, n);
        memset(whole + 8 + n, 0, n_data);
        path = fuzz_file(whole, 8 + n + n_data);
    }
    fuzz_container(path, true); /* a model would need config.json beside it */
    return 0;
}
