/* How what a link sends is spread: over time, over its streams, and between classes. */
#include <string.h>

#include "nc_amst_internal.h"
#include "nc_tcp.h"

/* Of a stream's share, what may wait in its socket: a control frame waits behind that. A timer
 * comes round far more often. */
#define UNSENT_SECONDS 0.02
#define UNSENT_MINIMUM (32u * 1024)
/* The kernel paces each stream, exactly; the bucket over all holds them where it cannot, and must
 * not hold them before. */
#define BUCKET_SLACK 16
/* So that a stream's share is never none, nor a segment a second. */
#define LEAST_SHARE 4096

void nc_pace_begin(struct nc_amst_link *link)
{
    /* As dwcp.acp.weights are unless an operator sets them. */
    static const uint32_t weights[NC_AMST_CLASSES] = {1, 16, 4, 1};

    memcpy(link->weights, weights, sizeof weights);
}

static bool carries(const struct nc_stream *stream)
{
    return stream->channel == NULL && stream->state == NC_AMST_STREAM_OPEN &&
           !atomic_load(&stream->retiring);
}

bool nc_pace_sends(const struct nc_stream *stream)
{
    const struct nc_amst_link *link = stream->link;
    uint32_t before = 0;

    if (link->senders == 0 || stream->channel != NULL)
        return true;
    for (const struct nc_stream *other = link->streams; other != NULL; other = other->next_in_link)
        before += carries(other) && other->id < stream->id;
    return before < link->senders;
}

void nc_pace_share(struct nc_amst_link *link)
{
    uint32_t lowat = NC_TCP_LOWAT_BYTES;
    uint64_t share = 0;

    if (link->pace_bps != 0) {
        uint32_t count = 0;
        double unsent;

        for (struct nc_stream *stream = link->streams; stream != NULL;
             stream = stream->next_in_link)
            count += carries(stream);
        if (link->senders != 0 && count > link->senders)
            count = link->senders;
        share = link->pace_bps / (count > 0 ? count : 1);
        share = share > LEAST_SHARE ? share : LEAST_SHARE;
        unsent = (double)share * UNSENT_SECONDS;
        if (unsent < lowat)
            lowat = unsent > UNSENT_MINIMUM ? (uint32_t)unsent : UNSENT_MINIMUM;
    }
    for (struct nc_stream *stream = link->streams; stream != NULL; stream = stream->next_in_link) {
        if (stream->channel != NULL || stream->share_bps == share)
            continue;
        stream->share_bps = share;
        atomic_store(&stream->lowat, lowat);
        nc_tcp_pace(stream->fd, share, lowat);
    }
}

void nc_pace_charge(struct nc_stream *stream)
{
    struct nc_amst_link *link = stream->link;
    uint64_t sent = atomic_load_explicit(&stream->wire_sent_bytes, memory_order_relaxed);

    if (link->pace_bps != 0 && stream->channel == NULL)
        nc_bucket_take(&link->pace, (int64_t)(sent - stream->paced_bytes));
    stream->paced_bytes = sent;
}

void nc_amst_link_pace(struct nc_amst_link *link, uint64_t pace_bps)
{
    (void)pthread_mutex_lock(&link->lock);
    if (link->pace_bps != pace_bps) {
        link->pace_bps = pace_bps;
        nc_bucket_set(&link->pace, pace_bps == 0 ? 0 : pace_bps + pace_bps / BUCKET_SLACK + 1,
                      nc_now_ns());
        nc_pace_share(link);
        nc_link_wake(link, link->stream_count);
    }
    (void)pthread_mutex_unlock(&link->lock);
}

void nc_amst_link_senders(struct nc_amst_link *link, uint32_t most)
{
    (void)pthread_mutex_lock(&link->lock);
    if (link->senders != most) {
        link->senders = most;
        nc_pace_share(link);
        nc_link_wake(link, link->stream_count);
    }
    (void)pthread_mutex_unlock(&link->lock);
}

int nc_amst_link_weight(struct nc_amst_link *link, uint32_t class, uint32_t weight,
                        struct nc_err *err)
{
    if (class == NC_AMST_CLASS_CONTROL || class >= NC_AMST_CLASSES || weight < 1 ||
        weight > NC_AMST_WEIGHT_MAX)
        return nc_err_set(err, NC_ERR_INVALID, 0, "weight %u for class %u", weight, class);
    (void)pthread_mutex_lock(&link->lock);
    link->weights[class] = weight;
    (void)pthread_mutex_unlock(&link->lock);
    return NC_ERR_OK;
}

int nc_amst_link_congestion(struct nc_amst_link *link, uint32_t stream_id, const char *name,
                            struct nc_err *err)
{
    struct nc_stream *stream;
    int code;

    /* Under the lock, so that the descriptor is not another one's meanwhile. */
    (void)pthread_mutex_lock(&link->lock);
    for (stream = link->streams; stream != NULL && stream->id != stream_id;
         stream = stream->next_in_link)
        ;
    if (stream == NULL || stream->channel != NULL)
        code = nc_err_set(err, NC_ERR_NOT_FOUND, 0, "there is no stream %u over TCP", stream_id);
    else
        code = nc_tcp_set(stream->fd, name, err);
    (void)pthread_mutex_unlock(&link->lock);
    return code;
}
