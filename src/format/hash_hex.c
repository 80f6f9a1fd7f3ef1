/* hash_hex: digests as text. */
#include "format/format.h"

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool hash_from_hex(str text, unsigned char digest[HASH_BYTES]) {
    if (text.size != 2 * (size_t)HASH_BYTES) return false;
    for (size_t i = 0; i < HASH_BYTES; i++) {
        const int high = hex_value(text.data[2 * i]), low = hex_value(text.data[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        digest[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

void hash_to_hex(const unsigned char digest[HASH_BYTES], char text[HASH_HEX_BYTES]) {
    for (size_t i = 0; i < HASH_BYTES; i++) {
        text[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    text[2 * HASH_BYTES] = '\0';
}
