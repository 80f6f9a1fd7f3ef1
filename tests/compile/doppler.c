/* The public header alone as strict C11: it needs nothing before it and warns about nothing. */
#include "doppler.h"

int main(void) {
    const dp_error err = { 0 };
    return err.status == DP_OK && sizeof DP_VERSION > 1 ? 0 : 1;
}
