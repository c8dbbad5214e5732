/* The least a C test needs: a check that counts, says where, and goes on. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <string.h>

static int check_failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

#define CHECK_TEXT(actual, expected)                                                               \
    do {                                                                                           \
        if (strcmp((actual), (expected)) != 0) {                                                   \
            (void)fprintf(stderr, "%s:%d: \"%s\" is not \"%s\"\n", __FILE__, __LINE__, (actual),   \
                          (expected));                                                             \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (0)

#define CHECK_RESULT (check_failures == 0 ? 0 : 1)

#endif
