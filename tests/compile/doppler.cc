/* The public header alone as strict C++17. */
#include "doppler.h"

int main() {
    const dp_error err = {};
    return err.status == DP_OK && sizeof DP_VERSION > 1 ? 0 : 1;
}
