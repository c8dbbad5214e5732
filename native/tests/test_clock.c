#include "nc_clock.h"

#include <sys/timex.h>

#include "check.h"
#include "nc_err.h"

static void reading_agrees_with_the_kernel(void)
{
    struct nc_clock clock;
    struct nc_err err = {0};
    struct timex timex = {0};

    memset(&clock, 0xff, sizeof clock);
    CHECK(nc_clock_read(&clock, &err) == NC_ERR_OK);
    CHECK(adjtimex(&timex) >= 0);
    CHECK(clock.synchronised == ((timex.status & STA_UNSYNC) == 0));
    CHECK(clock.maximum_us >= 0);
    CHECK(clock.tai_offset == timex.tai);
}

int main(void)
{
    reading_agrees_with_the_kernel();
    return CHECK_RESULT;
}
