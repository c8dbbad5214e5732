/* What the kernel knows about the quality of its clock. */
#ifndef NC_CLOCK_H
#define NC_CLOCK_H

#include <stdint.h>

struct nc_err;

struct nc_clock {
    int synchronised;     /* a time service disciplines the clock, and says so */
    int status;           /* STA_* bits */
    int64_t offset_ns;    /* what is still to be corrected */
    int64_t estimated_us; /* estimated error */
    int64_t maximum_us;   /* error bound; grows without synchronisation, 16 s means unknown */
    int tai_offset;       /* seconds; 0 where nobody told the kernel */
};

/* Reads, never changes, the clock discipline (adjtimex(2) with no mode bits). */
int nc_clock_read(struct nc_clock *ret_clock, struct nc_err *err);

#endif
