/* test_config: what the tests of descriptions share. */
#ifndef TESTS_TEST_CONFIG_H
#define TESTS_TEST_CONFIG_H

#include "model/model.h"
#include "tests/test.h"

typedef struct {
    container *files;
    arena memory;
    config config;
    bool ok;
} description;

/* Of a folder or file, whose tensors may be missing. */
description description_of_folder(test *t, const char *path);
/* Of a folder of the case's own with this config.json and nothing else. */
description description_of_text(test *t, const char *text);
void description_drop(description *d);

/* Everything that the pass goes by. */
void check_same_config(test *t, const config *a, const config *b);

/* A description says the same after it was written as the other spelling and read again: by way of
 * GGUF as it is, by way of GGUF and config.json (test_config_write.c). */
void check_written_config(test *t, const description *d);

#endif
