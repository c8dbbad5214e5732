/* What nc_verbs.c shares with the files that go on from a listed device. */
#ifndef NC_VERBS_PRIVATE_H
#define NC_VERBS_PRIVATE_H

#include "nc_err.h"
#include "nc_verbs.h"
#include "nc_verbs_abi.h"

struct nc_verbs {
    void *library;
    struct ibv_device **devices;
    size_t count;
#define X(name, type, parameters) type(*name) parameters;
    NC_VERBS_SYMBOLS(X)
#undef X
};

/* Puts the function of that name and version into the function pointer that ret_function points to.
 * UNAVAILABLE where the library has none; *ret_function is then untouched. */
int nc_verbs_load(void *library, const char *symbol, const char *version, void *ret_function,
                  struct nc_err *err);

/* What an errno of libibverbs means for somebody who wants to use RDMA. */
enum nc_err_code nc_verbs_code(int os_errno);

/* Bytes of an enum ibv_mtu; 0 if not known. */
int nc_verbs_mtu_bytes(int code);

#endif
