#include "nc_clock.h"

#include <errno.h>
#include <string.h>
#include <sys/timex.h>

#include "nc_err.h"

int nc_clock_read(struct nc_clock *ret_clock, struct nc_err *err)
{
    struct timex timex;
    int state;

    memset(&timex, 0, sizeof timex);
    state = adjtimex(&timex);
    if (state < 0) {
        int saved = errno;

        return nc_err_set(err, saved == EPERM ? NC_ERR_DENIED : NC_ERR_SYSTEM, saved, "adjtimex");
    }
    memset(ret_clock, 0, sizeof *ret_clock);
    /* TIME_ERROR alone also covers a lost PPS signal on a clock that is otherwise disciplined. */
    ret_clock->synchronised = (timex.status & STA_UNSYNC) == 0;
    ret_clock->status = timex.status;
    ret_clock->offset_ns =
        (timex.status & STA_NANO) != 0 ? (int64_t)timex.offset : (int64_t)timex.offset * 1000;
    ret_clock->estimated_us = timex.esterror;
    ret_clock->maximum_us = timex.maxerror;
    ret_clock->tai_offset = timex.tai;
    return NC_ERR_OK;
}
