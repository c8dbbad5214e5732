/* Error codes of the extension: one table, from which the enum, the names and the texts come. */
#ifndef NC_ERR_H
#define NC_ERR_H

/* X(name, text). The numbers are private to one build; Python asks for names. */
#define NC_ERR_TABLE(X)                                                                            \
    X(OK, "success")                                                                               \
    X(MEMORY, "out of memory")                                                                     \
    X(UNAVAILABLE, "not available on this machine")                                                \
    X(DENIED, "not permitted")                                                                     \
    X(INVALID, "invalid argument")                                                                 \
    X(NOT_FOUND, "not found")                                                                      \
    X(LIMIT, "larger than the buffer")                                                             \
    X(SYSTEM, "system call failed")                                                                \
    X(PROTOCOL, "the peer broke the protocol")                                                     \
    X(INTEGRITY, "a tag or checksum does not hold")                                                \
    X(CLOSED, "closed")                                                                            \
    X(TIMEOUT, "no answer in time")

enum nc_err_code {
#define X(name, text) NC_ERR_##name,
    NC_ERR_TABLE(X)
#undef X
        NC_ERR_MAX
};

#define NC_ERR_REASON_BYTES 160

/* Filled by every fallible call that returns something other than NC_ERR_OK. */
struct nc_err {
    int code;
    int os_errno; /* 0 where no system call was involved */
    char reason[NC_ERR_REASON_BYTES];
};

/* Changes whenever a prototype or struct does; the Python side refuses another build's number. */
#define NC_ABI 3

int nc_abi(void);
int nc_err_count(void);
/* "OK", "MEMORY", ...; "UNKNOWN" for a number outside of the table. Never NULL. */
const char *nc_err_name(int code);
const char *nc_err_text(int code);

/* Fills *err (which may be NULL) and returns code, so that a caller can write
 * `return nc_err_set(err, ...)`. Too long a reason is cut, never refused. */
int nc_err_set(struct nc_err *err, enum nc_err_code code, int os_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
