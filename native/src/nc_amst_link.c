/* Links: the streams they own, what is in flight on them, and who waits for work. */
#define _GNU_SOURCE

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nc_amst_internal.h"
#include "nc_rdma.h"

/* A greeting is two small frames; whoever needs longer is not there. */
#define GREETING_NS UINT64_C(10000000000)

static void wipe_options(struct nc_amst_link *link)
{
    nc_crypto_wipe(link->options.secret, sizeof link->options.secret);
    nc_crypto_wipe(link->options.context, sizeof link->options.context);
}

int nc_amst_link_open(struct nc_amst *engine, const struct nc_amst_link_options *options,
                      struct nc_amst_link **ret_link, struct nc_err *err)
{
    struct nc_amst_link *link;
    int code;

    *ret_link = NULL;
    if (options->max_chunk < NC_FRAME_MIN_CHUNK || options->max_chunk > NC_FRAME_MAX_CHUNK ||
        options->send_window < options->max_chunk || options->receive_window < options->max_chunk)
        return nc_err_set(err, NC_ERR_INVALID, 0, "chunk %u, windows %llu and %llu",
                          options->max_chunk, (unsigned long long)options->send_window,
                          (unsigned long long)options->receive_window);
    link = calloc(1, sizeof *link);
    if (link == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for a link");
    link->notice.subject = NC_SUBJECT_LINK;
    link->engine = engine;
    link->options = *options;
    nc_pace_begin(link);
    nc_hde_open(&link->chooser, 1u << NC_HDE_RAW, (double)options->link_bps);
    code = nc_frame_seed(options->secret, options->context, &link->seed, err);
    if (code != NC_ERR_OK) {
        wipe_options(link);
        free(link);
        return code;
    }
    (void)pthread_mutex_init(&link->lock, NULL);
    (void)pthread_mutex_lock(&engine->lock);
    link->next = engine->links;
    engine->links = link;
    (void)pthread_mutex_unlock(&engine->lock);
    *ret_link = link;
    return NC_ERR_OK;
}

/* --- Streams --- */

static struct nc_stream *new_stream(struct nc_amst_link *link, int fd, uint32_t id,
                                    struct nc_err *err)
{
    struct nc_stream *stream = calloc(1, sizeof *stream);

    if (stream == NULL) {
        (void)nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for a stream");
        return NULL;
    }
    stream->notice.subject = NC_SUBJECT_STREAM;
    stream->watch.kind = NC_WATCH_STREAM;
    stream->watch.subject = stream;
    stream->link = link;
    stream->id = id;
    stream->fd = fd;
    stream->state = NC_AMST_STREAM_GREETING;
    stream->deadline_ns = nc_now_ns() + GREETING_NS;
    atomic_store(&stream->lowat, NC_TCP_LOWAT_BYTES);
    if (nc_stream_keys(stream, err) != NC_ERR_OK) {
        stream->fd = -1; /* the caller closes it */
        nc_stream_free(stream);
        return NULL;
    }
    return stream;
}

/* Whether a greeting with this id proves anything: one taken from the wire must not do so a second
 * time. Connections that are dialled together greet in any order, so that ids may come late, but
 * not later than what is remembered; an id below that is taken for used. Under the link's lock. */
static bool id_is_fresh(const struct nc_amst_link *link, uint32_t id)
{
    if (id > link->last_stream)
        return true;
    if (link->last_stream - id >= NC_STREAM_IDS)
        return false;
    return (link->ids[id % NC_STREAM_IDS / 64] >> id % 64 & 1) == 0;
}

static void use_id(struct nc_amst_link *link, uint32_t id)
{
    if (id > link->last_stream) {
        if (id - link->last_stream >= NC_STREAM_IDS)
            memset(link->ids, 0, sizeof link->ids);
        else
            for (uint32_t between = link->last_stream + 1; between != id; between++)
                link->ids[between % NC_STREAM_IDS / 64] &= ~(UINT64_C(1) << between % 64);
        link->last_stream = id;
    }
    link->ids[id % NC_STREAM_IDS / 64] |= UINT64_C(1) << id % 64;
}

/* Takes over a stream that is complete. */
static int enlist(struct nc_stream *stream, struct nc_err *err)
{
    struct nc_amst_link *link = stream->link;
    struct nc_thread *thread = nc_thread_choose(link->engine);

    stream->thread = thread;
    (void)pthread_mutex_lock(&link->lock);
    if (link->aborted || atomic_load(&link->engine->closing)) {
        (void)pthread_mutex_unlock(&link->lock);
        return nc_err_set(err, NC_ERR_CLOSED, 0, "the link was ended");
    }
    for (const struct nc_stream *other = link->streams; other != NULL;
         other = other->next_in_link) {
        if (other->id == stream->id) {
            (void)pthread_mutex_unlock(&link->lock);
            return nc_err_set(err, NC_ERR_DENIED, 0, "stream %u is there already", stream->id);
        }
    }
    if (!link->options.initiator) {
        if (!id_is_fresh(link, stream->id)) {
            (void)pthread_mutex_unlock(&link->lock);
            return nc_err_set(err, NC_ERR_DENIED, 0, "stream %u was used before", stream->id);
        }
        use_id(link, stream->id);
    }
    stream->next_in_link = link->streams;
    link->streams = stream;
    link->stream_count++;
    (void)atomic_fetch_add(&thread->streams, 1);
    /* Before anybody can find it in the link and kick it. */
    (void)pthread_mutex_lock(&thread->lock);
    stream->next_in_thread = thread->added;
    thread->added = stream;
    (void)pthread_mutex_unlock(&thread->lock);
    (void)pthread_mutex_unlock(&link->lock);
    nc_thread_wake(thread);
    return NC_ERR_OK;
}

int nc_amst_link_dialled(struct nc_amst_link *link, int fd, uint32_t stream_id, struct nc_err *err)
{
    struct nc_stream *stream;
    int code = nc_tcp_prepare(fd, err);

    if (code == NC_ERR_OK) {
        stream = new_stream(link, fd, stream_id, err);
        if (stream == NULL) {
            code = NC_ERR_MEMORY;
        } else {
            code = enlist(stream, err);
            if (code == NC_ERR_OK)
                return code;
            nc_stream_free(stream);
            return code;
        }
    }
    (void)close(fd);
    return code;
}

int nc_amst_link_accepted(struct nc_amst_link *link, int fd, const uint8_t *hello, size_t size,
                          struct nc_err *err)
{
    struct nc_stream *stream = NULL;
    struct nc_frame frame;
    int code;

    if (size != NC_FRAME_HELLO_BYTES) {
        code = nc_err_set(err, NC_ERR_INVALID, 0, "a greeting of %zu bytes", size);
        goto refuse;
    }
    code = nc_frame_read(hello, link->seed, link->options.max_chunk, &frame, err);
    if (code != NC_ERR_OK)
        goto refuse;
    if (frame.type != NC_FRAME_HELLO)
        code = nc_err_set(err, NC_ERR_DENIED, 0, "a greeting was expected");
    if (code == NC_ERR_OK)
        code = nc_tcp_prepare(fd, err);
    if (code != NC_ERR_OK)
        goto refuse;
    stream = new_stream(link, fd, frame.stream, err);
    if (stream == NULL) {
        code = NC_ERR_MEMORY;
        goto refuse;
    }
    code = nc_stream_check_greeting(stream, hello, NC_FRAME_HELLO, err);
    if (code == NC_ERR_OK)
        code = enlist(stream, err);
    if (code == NC_ERR_OK)
        return code;
    nc_stream_free(stream);
    return code;

refuse:
    (void)close(fd);
    return code;
}

int nc_amst_link_rdma(struct nc_amst_link *link, struct nc_rdma_channel *channel,
                      uint32_t stream_id, struct nc_err *err)
{
    uint32_t needed = NC_FRAME_HEADER_BYTES + link->options.max_chunk + NC_FRAME_CHECKSUM_BYTES +
                      NC_CRYPTO_TAG_BYTES;
    struct nc_stream *stream;
    struct nc_rdma_peer local;
    int code;

    nc_rdma_channel_local(channel, &local);
    if (local.slot_bytes < needed) {
        nc_rdma_channel_close(channel);
        return nc_err_set(err, NC_ERR_INVALID, 0, "slots of %u bytes for frames of up to %u",
                          local.slot_bytes, needed);
    }
    stream = new_stream(link, nc_rdma_channel_fd(channel), stream_id, err);
    if (stream == NULL) {
        nc_rdma_channel_close(channel);
        return NC_ERR_MEMORY;
    }
    stream->channel = channel;
    stream->readable = true; /* what came before the descriptor was watched */
    code = enlist(stream, err);
    if (code != NC_ERR_OK)
        nc_stream_free(stream);
    return code;
}

int nc_amst_link_retire(struct nc_amst_link *link, uint32_t stream_id, struct nc_err *err)
{
    struct nc_stream *stream;

    (void)pthread_mutex_lock(&link->lock);
    for (stream = link->streams; stream != NULL && stream->id != stream_id;
         stream = stream->next_in_link)
        ;
    if (stream != NULL) {
        atomic_store(&stream->retiring, true);
        nc_link_kick(stream);
        /* Its part goes to the others, one of which may send now and did not before. */
        nc_pace_share(link);
        nc_link_wake(link, link->senders != 0 ? link->stream_count : 0);
    }
    (void)pthread_mutex_unlock(&link->lock);
    if (stream == NULL)
        return nc_err_set(err, NC_ERR_NOT_FOUND, 0, "there is no stream %u", stream_id);
    return NC_ERR_OK;
}

void nc_link_kick(struct nc_stream *stream)
{
    struct nc_thread *thread = stream->thread;
    bool wake = false;

    (void)pthread_mutex_lock(&thread->lock);
    if (!stream->kicked) {
        stream->kicked = true;
        wake = thread->kicked == NULL;
        stream->next_kicked = thread->kicked;
        thread->kicked = stream;
    }
    (void)pthread_mutex_unlock(&thread->lock);
    /* The thread itself collects before it sleeps. */
    if (wake && !pthread_equal(pthread_self(), thread->thread))
        nc_thread_wake(thread);
    else if (wake)
        thread->restless = true;
}

void nc_link_wake(struct nc_amst_link *link, unsigned count)
{
    /* Whoever is woken must not be one that is given nothing. */
    if (count > 0 && link->senders != 0)
        count = link->stream_count;
    while (count-- > 0 && link->idle_first != NULL) {
        struct nc_stream *stream = link->idle_first;

        nc_link_not_idle(stream, 0);
        nc_link_kick(stream);
    }
}

void nc_link_idle(struct nc_stream *stream, enum nc_idle why, uint64_t now_ns)
{
    struct nc_amst_link *link = stream->link;

    nc_link_not_idle(stream, now_ns);
    stream->idle = true;
    stream->idle_why = (int)why;
    stream->idle_since_ns = now_ns;
    stream->next_idle = NULL;
    stream->previous_idle = link->idle_last;
    if (link->idle_last != NULL)
        link->idle_last->next_idle = stream;
    else
        link->idle_first = stream;
    link->idle_last = stream;
}

void nc_link_not_idle(struct nc_stream *stream, uint64_t now_ns)
{
    struct nc_amst_link *link = stream->link;
    uint64_t passed;

    if (!stream->idle)
        return;
    if (now_ns == 0)
        now_ns = nc_now_ns();
    passed = now_ns > stream->idle_since_ns ? now_ns - stream->idle_since_ns : 0;
    switch ((enum nc_idle)stream->idle_why) {
    case NC_IDLE_EMPTY:
        link->info.starved_ns += passed;
        break;
    case NC_IDLE_LIMITED:
        link->info.limited_ns += passed;
        break;
    case NC_IDLE_WINDOW:
        link->info.window_ns += passed;
        break;
    }
    stream->idle = false;
    if (stream->previous_idle != NULL)
        stream->previous_idle->next_idle = stream->next_idle;
    else
        link->idle_first = stream->next_idle;
    if (stream->next_idle != NULL)
        stream->next_idle->previous_idle = stream->previous_idle;
    else
        link->idle_last = stream->previous_idle;
}

void nc_link_stream_gone(struct nc_stream *stream)
{
    struct nc_amst_link *link = stream->link;
    struct nc_thread *thread = stream->thread;
    struct nc_amst *engine = link->engine;
    bool last;

    nc_slab_give(thread, stream->in.slab);
    stream->in.slab = NULL;
    nc_stream_area_back(stream);
    (void)pthread_mutex_lock(&link->lock);
    nc_link_not_idle(stream, 0);
    (void)pthread_mutex_lock(&thread->lock);
    for (struct nc_stream **at = &thread->kicked; *at != NULL; at = &(*at)->next_kicked) {
        if (*at == stream) {
            *at = stream->next_kicked;
            break;
        }
    }
    (void)pthread_mutex_unlock(&thread->lock);
    for (struct nc_stream **at = &link->streams; *at != NULL; at = &(*at)->next_in_link) {
        if (*at == stream) {
            *at = stream->next_in_link;
            break;
        }
    }
    link->info.wire_sent_bytes += atomic_load(&stream->wire_sent_bytes);
    link->info.wire_received_bytes += atomic_load(&stream->wire_received_bytes);
    if (stream->out.lender != NULL) {
        nc_object_release(stream->out.lender);
        stream->out.lender = NULL;
    }
    nc_flight_requeue(stream);
    nc_pipe_acknowledge_again(link);
    nc_pace_share(link);
    nc_link_wake(link, link->stream_count);
    if (stream->channel != NULL) {
        /* Memory is unlocked, which takes its time; the others go on meanwhile. */
        (void)pthread_mutex_unlock(&link->lock);
        nc_rdma_channel_close(stream->channel);
        stream->channel = NULL;
        stream->fd = -1;
        (void)pthread_mutex_lock(&link->lock);
    }
    link->stream_count--;
    last = link->aborted && link->stream_count == 0 && !link->ended;
    if (last)
        link->ended = true;
    (void)atomic_fetch_sub(&thread->streams, 1);
    if (stream->fd >= 0) {
        (void)close(stream->fd);
        stream->fd = -1;
    }
    nc_notice_post(engine, &stream->notice,
                   stream->lost_code == NC_ERR_OK ? NC_AMST_STREAM_CLOSED : NC_AMST_STREAM_LOST,
                   stream->lost_code, stream->lost_errno);
    if (last)
        nc_notice_post(engine, &link->notice, NC_AMST_LINK_ENDED, NC_ERR_OK, 0);
    (void)pthread_mutex_unlock(&link->lock);
}

/* --- Ends --- */

void nc_amst_link_limit(struct nc_amst_link *link, uint64_t limit_bps)
{
    (void)pthread_mutex_lock(&link->lock);
    nc_bucket_set(&link->bucket, limit_bps, nc_now_ns());
    nc_link_wake(link, link->stream_count);
    (void)pthread_mutex_unlock(&link->lock);
}

void nc_amst_link_abort(struct nc_amst_link *link)
{
    (void)pthread_mutex_lock(&link->lock);
    link->aborted = true;
    for (struct nc_stream *stream = link->streams; stream != NULL; stream = stream->next_in_link) {
        atomic_store(&stream->killed, true);
        nc_link_kick(stream);
    }
    for (struct nc_amst_object *object = link->outgoing; object != NULL; object = object->next)
        nc_object_finish(object, NC_ERR_CLOSED, 0);
    for (struct nc_amst_object *object = link->incoming; object != NULL; object = object->next)
        nc_object_finish(object, NC_ERR_CLOSED, 0);
    if (link->stream_count == 0 && !link->ended) {
        link->ended = true;
        nc_notice_post(link->engine, &link->notice, NC_AMST_LINK_ENDED, NC_ERR_OK, 0);
    }
    (void)pthread_mutex_unlock(&link->lock);
}

void nc_amst_link_free(struct nc_amst_link *link)
{
    struct nc_amst *engine;

    if (link == NULL)
        return;
    engine = link->engine;
    /* The thread that posted LINK_ENDED did so under this lock: let it come out. */
    (void)pthread_mutex_lock(&link->lock);
    (void)pthread_mutex_unlock(&link->lock);
    (void)pthread_mutex_lock(&engine->lock);
    for (struct nc_amst_link **at = &engine->links; *at != NULL; at = &(*at)->next) {
        if (*at == link) {
            *at = link->next;
            break;
        }
    }
    (void)pthread_mutex_unlock(&engine->lock);
    (void)pthread_mutex_destroy(&link->lock);
    wipe_options(link);
    free(link);
}

void nc_amst_link_info(struct nc_amst_link *link, struct nc_amst_link_info *ret_info)
{
    uint64_t now = nc_now_ns();

    (void)pthread_mutex_lock(&link->lock);
    *ret_info = link->info;
    ret_info->in_flight_bytes = link->in_flight;
    ret_info->streams = link->stream_count;
    for (struct nc_stream *stream = link->streams; stream != NULL; stream = stream->next_in_link) {
        uint64_t passed;

        ret_info->wire_sent_bytes += atomic_load(&stream->wire_sent_bytes);
        ret_info->wire_received_bytes += atomic_load(&stream->wire_received_bytes);
        if (!stream->idle || now < stream->idle_since_ns)
            continue;
        passed = now - stream->idle_since_ns;
        if (stream->idle_why == NC_IDLE_EMPTY)
            ret_info->starved_ns += passed;
        else if (stream->idle_why == NC_IDLE_LIMITED)
            ret_info->limited_ns += passed;
        else
            ret_info->window_ns += passed;
    }
    (void)pthread_mutex_unlock(&link->lock);
}
