#include "nc_err.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const names[] = {
#define X(name, text) #name,
    NC_ERR_TABLE(X)
#undef X
};

static const char *const texts[] = {
#define X(name, text) text,
    NC_ERR_TABLE(X)
#undef X
};

int nc_abi(void)
{
    return NC_ABI;
}

int nc_err_count(void)
{
    return NC_ERR_MAX;
}

const char *nc_err_name(int code)
{
    return code >= 0 && code < NC_ERR_MAX ? names[code] : "UNKNOWN";
}

const char *nc_err_text(int code)
{
    return code >= 0 && code < NC_ERR_MAX ? texts[code] : "unknown error";
}

int nc_err_set(struct nc_err *err, enum nc_err_code code, int os_errno, const char *format, ...)
{
    if (err != NULL) {
        va_list arguments;

        err->code = (int)code;
        err->os_errno = os_errno;
        va_start(arguments, format);
        if (vsnprintf(err->reason, sizeof err->reason, format, arguments) < 0)
            err->reason[0] = '\0';
        va_end(arguments);
    }
    return (int)code;
}
