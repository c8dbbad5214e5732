/* What the two files of the false libibverbs share. Whoever breaks a rule of the real one, by
 * destroying what is in use or overrunning a queue, ends the process with a message. */
#ifndef FAKE_VERBS_H
#define FAKE_VERBS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/nc_rdma_abi.h"

struct fake_context {
    struct ibv_context base;
    int number;
    int async_end;        /* where events about the device are written */
    unsigned int objects; /* that were made and not destroyed */
};

/* Whether FAKE_VERBS in the environment asks for this fault. */
static inline int fault(const char *name)
{
    const char *wanted = getenv("FAKE_VERBS");

    return wanted != NULL && strcmp(wanted, name) == 0;
}

#define FAKE_DIE(...)                                                                              \
    do {                                                                                           \
        (void)fprintf(stderr, "fake libibverbs: " __VA_ARGS__);                                    \
        (void)fputc('\n', stderr);                                                                 \
        abort();                                                                                   \
    } while (0)

/* Fills the table of calls that verbs.h makes inline. */
void fake_rdma_ops(struct ibv_context_ops *ops);

#define X(name, type, parameters) type ibv_##name parameters;
NC_VERBS_SYMBOLS(X)
#undef X
#define X(name, version, type, parameters) type ibv_##name parameters;
NC_RDMA_SYMBOLS(X)
#undef X
int ibv_is_fork_initialized(void);

/* For tests, which find them with dlsym.
 * guard: no write from the other side may touch these bytes until they are unguarded.
 * raise: an asynchronous event of this type on every open device.
 * starved: how many writes found no receive posted. */
void fake_verbs_guard(const void *address, size_t size, int guarded);
void fake_verbs_raise(int event_type);
unsigned int fake_verbs_starved(void);

#endif
