/* Token buckets. */
#include "nc_amst_internal.h"

/* What may be sent at once after a rest: enough for a timer's lateness, little enough not to fill a
 * queue on the way. */
#define BURST_SECONDS 0.02
#define BURST_MINIMUM 65536.0

static double burst(const struct nc_bucket *bucket)
{
    double bytes = (double)bucket->rate * BURST_SECONDS;

    return bytes > BURST_MINIMUM ? bytes : BURST_MINIMUM;
}

static void refill(struct nc_bucket *bucket, uint64_t now_ns)
{
    double limit = burst(bucket);

    if (now_ns > bucket->last_ns) {
        bucket->tokens += (double)(now_ns - bucket->last_ns) * 1e-9 * (double)bucket->rate;
        bucket->last_ns = now_ns;
    }
    if (bucket->tokens > limit)
        bucket->tokens = limit;
}

void nc_bucket_set(struct nc_bucket *bucket, uint64_t rate, uint64_t now_ns)
{
    if (bucket->rate == rate)
        return;
    if (bucket->rate != 0)
        refill(bucket, now_ns);
    bucket->rate = rate;
    bucket->last_ns = now_ns;
    /* A debt made at a high rate is not to be paid off at a low one. */
    if (bucket->tokens < 0)
        bucket->tokens = 0;
}

uint64_t nc_bucket_wait(struct nc_bucket *bucket, uint64_t now_ns)
{
    if (bucket->rate == 0)
        return 0;
    refill(bucket, now_ns);
    if (bucket->tokens > 0)
        return 0;
    return (uint64_t)(-bucket->tokens / (double)bucket->rate * 1e9) + 1000;
}

void nc_bucket_take(struct nc_bucket *bucket, int64_t bytes)
{
    if (bucket->rate != 0)
        bucket->tokens -= (double)bytes;
}
