/* dtype: the one table of element types, in GGUF's numbering as far as that goes.
 *
 * Holes are numbers that GGUF has removed, types that only live inside other engines (Q8_1) and
 * types that this version does not read. */
#include "format/format.h"

static const dtype_info infos[DTYPE_COUNT] = {
    [DTYPE_F32] = { "F32", "F32", 1, 4 },
    [DTYPE_F16] = { "F16", "F16", 1, 2 },
    [DTYPE_Q4_0] = { "Q4_0", NULL, 32, 18 },
    [DTYPE_Q4_1] = { "Q4_1", NULL, 32, 20 },
    [DTYPE_Q5_0] = { "Q5_0", NULL, 32, 22 },
    [DTYPE_Q5_1] = { "Q5_1", NULL, 32, 24 },
    [DTYPE_Q8_0] = { "Q8_0", NULL, 32, 34 },
    [DTYPE_Q2_K] = { "Q2_K", NULL, 256, 84 },
    [DTYPE_Q3_K] = { "Q3_K", NULL, 256, 110 },
    [DTYPE_Q4_K] = { "Q4_K", NULL, 256, 144 },
    [DTYPE_Q5_K] = { "Q5_K", NULL, 256, 176 },
    [DTYPE_Q6_K] = { "Q6_K", NULL, 256, 210 },
    [DTYPE_Q8_K] = { "Q8_K", NULL, 256, 292 },
    [DTYPE_IQ4_NL] = { "IQ4_NL", NULL, 32, 18 },
    [DTYPE_IQ4_XS] = { "IQ4_XS", NULL, 256, 136 },
    [DTYPE_I8] = { "I8", "I8", 1, 1 },
    [DTYPE_I16] = { "I16", "I16", 1, 2 },
    [DTYPE_I32] = { "I32", "I32", 1, 4 },
    [DTYPE_I64] = { "I64", "I64", 1, 8 },
    [DTYPE_F64] = { "F64", "F64", 1, 8 },
    [DTYPE_BF16] = { "BF16", "BF16", 1, 2 },
    [DTYPE_MXFP4] = { "MXFP4", NULL, 32, 17 },
    [DTYPE_BOOL] = { "BOOL", "BOOL", 1, 1 },
    [DTYPE_U8] = { "U8", "U8", 1, 1 },
    [DTYPE_U16] = { "U16", "U16", 1, 2 },
    [DTYPE_U32] = { "U32", "U32", 1, 4 },
    [DTYPE_U64] = { "U64", "U64", 1, 8 },
    [DTYPE_C64] = { "C64", "C64", 1, 8 },
    [DTYPE_F8_E4M3] = { "F8_E4M3", "F8_E4M3", 1, 1 },
    [DTYPE_F8_E5M2] = { "F8_E5M2", "F8_E5M2", 1, 1 },
    [DTYPE_F8_E8M0] = { "F8_E8M0", "F8_E8M0", 1, 1 },
    [DTYPE_F6_E2M3] = { "F6_E2M3", "F6_E2M3", 4, 3 },
    [DTYPE_F6_E3M2] = { "F6_E3M2", "F6_E3M2", 4, 3 },
    [DTYPE_F4] = { "F4", "F4", 2, 1 },
};

const dtype_info *dtype_get(uint32_t type) {
    return type < DTYPE_COUNT && infos[type].name != NULL ? &infos[type] : NULL;
}

static char to_upper(char c) {
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

bool dtype_by_name(str name, dtype *out) {
    for (uint32_t i = 0; i < DTYPE_COUNT; i++) {
        const str ours = str_of(infos[i].name);
        if (ours.size == 0 || ours.size != name.size) continue;
        size_t k = 0;
        while (k < name.size && to_upper(name.data[k]) == ours.data[k])
            k++;
        if (k < name.size) continue;
        *out = (dtype)i;
        return true;
    }
    return false;
}

bool dtype_by_safetensors(str name, dtype *out) {
    for (uint32_t i = 0; i < DTYPE_COUNT; i++) {
        if (infos[i].safetensors == NULL || !str_is(name, infos[i].safetensors)) continue;
        *out = (dtype)i;
        return true;
    }
    return false;
}

bool dtype_is_quantised(dtype type) {
    const dtype_info *info = dtype_get(type);
    return info != NULL && info->block_elements > 1 && type < DTYPE_GGUF_END;
}

bool dtype_row_bytes(dtype type, uint64_t n, uint64_t *bytes) {
    const dtype_info *info = dtype_get(type);
    if (info == NULL || n % info->block_elements != 0) return false;
    return mul_u64(n / info->block_elements, info->block_bytes, bytes);
}

bool dtype_padded_row_bytes(dtype type, uint64_t n, uint64_t *bytes) {
    const dtype_info *info = dtype_get(type);
    if (info == NULL) return false;
    const uint64_t blocks = n / info->block_elements + (n % info->block_elements != 0);
    return mul_u64(blocks, info->block_bytes, bytes);
}
