/* The engine's threads, and how they tell the caller what happened. */
#define _GNU_SOURCE

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "nc_amst_internal.h"

#define EVENTS 64
/* Room for a header, a chunk, its checksum and a tag, in whole pages. */
#define SLAB_BYTES                                                                                 \
    ((NC_FRAME_HEADER_BYTES + NC_FRAME_MAX_CHUNK + NC_FRAME_CHECKSUM_BYTES + NC_CRYPTO_TAG_BYTES + \
      4095u) &                                                                                     \
     ~4095u)

uint64_t nc_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- Notices ------------------------------------------------------------------------------------
 */

void nc_notice_post(struct nc_amst *engine, struct nc_notice *notice, int kind, int code,
                    int os_errno)
{
    bool wake = false;

    (void)pthread_mutex_lock(&engine->lock);
    notice->mask |= 1u << kind;
    if (kind == NC_AMST_STREAM_LOST || kind == NC_AMST_OBJECT_FAILED) {
        notice->code = code;
        notice->os_errno = os_errno;
    }
    if (!notice->queued) {
        notice->queued = true;
        notice->next = NULL;
        wake = engine->first_notice == NULL;
        if (engine->last_notice != NULL)
            engine->last_notice->next = notice;
        else
            engine->first_notice = notice;
        engine->last_notice = notice;
    }
    (void)pthread_mutex_unlock(&engine->lock);
    if (wake)
        (void)eventfd_write(engine->event_fd, 1);
}

static void describe(const struct nc_notice *notice, int kind, struct nc_amst_event *ret_event)
{
    memset(ret_event, 0, sizeof *ret_event);
    ret_event->kind = kind;
    if (kind == NC_AMST_STREAM_LOST || kind == NC_AMST_OBJECT_FAILED) {
        ret_event->code = notice->code;
        ret_event->os_errno = notice->os_errno;
    }
    switch (notice->subject) {
    case NC_SUBJECT_LINK:
        ret_event->link = ((const struct nc_amst_link *)(const void *)notice)->options.tag;
        break;
    case NC_SUBJECT_STREAM:
        ret_event->link = ((const struct nc_stream *)(const void *)notice)->link->options.tag;
        ret_event->stream = ((const struct nc_stream *)(const void *)notice)->id;
        break;
    case NC_SUBJECT_OBJECT:
        ret_event->link = ((const struct nc_amst_object *)(const void *)notice)->link->options.tag;
        ret_event->object = ((const struct nc_amst_object *)(const void *)notice)->tag;
        ret_event->refused =
            kind == NC_AMST_OBJECT_FAILED &&
            atomic_load(&((const struct nc_amst_object *)(const void *)notice)->refused);
        break;
    }
}

size_t nc_amst_poll(struct nc_amst *engine, struct nc_amst_event *ret_events, size_t capacity)
{
    struct nc_notice *dead = NULL;
    eventfd_t ignored;
    size_t count = 0;
    bool more;

    (void)eventfd_read(engine->event_fd, &ignored);
    (void)pthread_mutex_lock(&engine->lock);
    while (engine->first_notice != NULL && count < capacity) {
        struct nc_notice *notice = engine->first_notice;

        for (int kind = 1; kind < NC_AMST_EVENT_MAX && count < capacity; kind++) {
            if ((notice->mask & 1u << kind) == 0)
                continue;
            notice->mask &= ~(1u << kind);
            describe(notice, kind, &ret_events[count++]);
            /* A stream's last word: nobody else points to it any more. */
            if (kind == NC_AMST_STREAM_LOST || kind == NC_AMST_STREAM_CLOSED) {
                notice->mask = 0;
                engine->first_notice = notice->next;
                notice->next = dead;
                dead = notice;
                notice = NULL;
                break;
            }
        }
        if (notice != NULL) {
            if (notice->mask != 0)
                break;
            notice->queued = false;
            engine->first_notice = notice->next;
        }
        if (engine->first_notice == NULL)
            engine->last_notice = NULL;
    }
    more = engine->first_notice != NULL;
    (void)pthread_mutex_unlock(&engine->lock);
    while (dead != NULL) {
        struct nc_notice *next = dead->next;

        nc_stream_free((struct nc_stream *)(void *)dead);
        dead = next;
    }
    if (more)
        (void)eventfd_write(engine->event_fd, 1);
    return count;
}

int nc_amst_event_fd(const struct nc_amst *engine)
{
    return engine->event_fd;
}

/* --- Rates --------------------------------------------------------------------------------------
 */

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

void nc_amst_limit(struct nc_amst *engine, uint64_t limit_bps)
{
    (void)pthread_mutex_lock(&engine->lock);
    nc_bucket_set(&engine->bucket, limit_bps, nc_now_ns());
    (void)pthread_mutex_unlock(&engine->lock);
    for (uint32_t i = 0; i < engine->thread_count; i++)
        nc_thread_wake(&engine->threads[i]);
}

/* --- Slabs --------------------------------------------------------------------------------------
 */

uint8_t *nc_slab_take(struct nc_thread *thread)
{
    void *slab;

    if (thread->spares > 0)
        return thread->spare[--thread->spares];
    slab = mmap(NULL, SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slab == MAP_FAILED)
        return NULL;
    return slab;
}

void nc_slab_give(struct nc_thread *thread, uint8_t *slab)
{
    if (slab == NULL)
        return;
    if (thread->spares < sizeof thread->spare / sizeof thread->spare[0])
        thread->spare[thread->spares++] = slab;
    else
        (void)munmap(slab, SLAB_BYTES);
}

/* --- Threads ------------------------------------------------------------------------------------
 */

struct nc_thread *nc_thread_choose(struct nc_amst *engine)
{
    unsigned start = atomic_fetch_add(&engine->next_thread, 1);
    struct nc_thread *best = &engine->threads[start % engine->thread_count];

    for (uint32_t i = 0; i < engine->thread_count; i++) {
        struct nc_thread *thread = &engine->threads[(start + i) % engine->thread_count];

        if (atomic_load(&thread->streams) < atomic_load(&best->streams))
            best = thread;
    }
    return best;
}

void nc_thread_wake(struct nc_thread *thread)
{
    (void)eventfd_write(thread->wake_fd, 1);
}

void nc_thread_ready(struct nc_stream *stream)
{
    struct nc_thread *thread = stream->thread;

    if (stream->ready)
        return;
    stream->ready = true;
    stream->next_ready = NULL;
    if (thread->ready_last != NULL)
        thread->ready_last->next_ready = stream;
    else
        thread->ready_first = stream;
    thread->ready_last = stream;
}

void nc_thread_timer(struct nc_thread *thread, uint64_t at_ns)
{
    if (at_ns != 0 && (thread->next_timer_ns == 0 || at_ns < thread->next_timer_ns))
        thread->next_timer_ns = at_ns;
}

static void watch_out(struct nc_stream *stream)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = &stream->watch};
    bool wants = stream->blocked && stream->channel == NULL;

    if (wants == stream->watches_out)
        return;
    if (wants)
        event.events |= EPOLLOUT;
    (void)epoll_ctl(stream->thread->epoll_fd, EPOLL_CTL_MOD, stream->fd, &event);
    stream->watches_out = wants;
}

static void adopt(struct nc_thread *thread, struct nc_stream *stream)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = &stream->watch};

    stream->next_in_thread = thread->all;
    thread->all = stream;
    if (epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, stream->fd, &event) != 0)
        nc_stream_break(stream, NC_ERR_SYSTEM, errno);
    else
        nc_stream_start(stream);
    nc_thread_ready(stream);
}

/* What others handed over: new streams, and streams for which there may be work. */
static void collect(struct nc_thread *thread)
{
    struct nc_stream *added;
    struct nc_stream *next;

    thread->restless = false;
    (void)pthread_mutex_lock(&thread->lock);
    added = thread->added;
    thread->added = NULL;
    while (thread->kicked != NULL) {
        struct nc_stream *stream = thread->kicked;

        thread->kicked = stream->next_kicked;
        stream->kicked = false;
        nc_thread_ready(stream);
    }
    (void)pthread_mutex_unlock(&thread->lock);
    for (; added != NULL; added = next) {
        next = added->next_in_thread;
        adopt(thread, added);
    }
}

/* Aborted pipes are closed here, between two batches of events, so that no event already taken from
 * epoll can point to one that is gone. */
static void close_pipes(struct nc_thread *thread)
{
    struct nc_amst_object *closing;

    (void)pthread_mutex_lock(&thread->lock);
    closing = thread->closing;
    thread->closing = NULL;
    (void)pthread_mutex_unlock(&thread->lock);
    while (closing != NULL) {
        struct nc_amst_object *next = closing->pipe->next_closing;

        nc_pipe_close(closing);
        closing = next;
    }
}

static void take_events(struct nc_thread *thread, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        const struct nc_watch *watch = events[i].data.ptr;
        eventfd_t ignored;
        struct nc_stream *stream;

        switch (watch->kind) {
        case NC_WATCH_WAKE:
            (void)eventfd_read(thread->wake_fd, &ignored);
            break;
        case NC_WATCH_PIPE:
            nc_pipe_event(watch->subject);
            break;
        case NC_WATCH_STREAM:
            stream = watch->subject;
            if ((events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
                stream->readable = true;
            if ((events[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0)
                stream->blocked = false;
            nc_thread_ready(stream);
            break;
        }
    }
}

static void run_timers(struct nc_thread *thread, uint64_t now_ns)
{
    if (thread->next_timer_ns == 0 || thread->next_timer_ns > now_ns)
        return;
    thread->next_timer_ns = 0;
    for (struct nc_stream *stream = thread->all; stream != NULL; stream = stream->next_in_thread) {
        if (stream->deadline_ns != 0 && stream->deadline_ns <= now_ns) {
            stream->deadline_ns = 0;
            nc_stream_break(stream, NC_ERR_TIMEOUT, ETIMEDOUT);
        }
        if (stream->wake_ns != 0 && stream->wake_ns <= now_ns) {
            stream->wake_ns = 0;
            nc_thread_ready(stream);
        }
        nc_thread_timer(thread, stream->deadline_ns);
        nc_thread_timer(thread, stream->wake_ns);
    }
}

static void not_ready(struct nc_stream *stream)
{
    struct nc_thread *thread = stream->thread;
    struct nc_stream *before = NULL;
    struct nc_stream *at = thread->ready_first;

    while (at != NULL && at != stream) {
        before = at;
        at = at->next_ready;
    }
    if (at == NULL)
        return;
    if (before != NULL)
        before->next_ready = at->next_ready;
    else
        thread->ready_first = at->next_ready;
    if (thread->ready_last == at)
        thread->ready_last = before;
    stream->ready = false;
}

static void bury(struct nc_stream *stream)
{
    struct nc_thread *thread = stream->thread;

    not_ready(stream);
    for (struct nc_stream **at = &thread->all; *at != NULL; at = &(*at)->next_in_thread) {
        if (*at == stream) {
            *at = stream->next_in_thread;
            break;
        }
    }
    (void)epoll_ctl(thread->epoll_fd, EPOLL_CTL_DEL, stream->fd, NULL);
    nc_link_stream_gone(stream);
}

/* One turn of one stream: what has come, then at most a frame out, so that all get their share. */
static void serve(struct nc_stream *stream)
{
    if (atomic_load(&stream->killed))
        nc_stream_break(stream, NC_ERR_CLOSED, 0);
    if (!stream->broken && stream->readable)
        nc_stream_receive(stream);
    if (!stream->broken && !stream->blocked)
        nc_stream_transmit(stream);
    if (stream->broken) {
        bury(stream);
        return;
    }
    if (stream->readable)
        nc_thread_ready(stream);
    watch_out(stream);
}

static void serve_ready(struct nc_thread *thread)
{
    size_t count = 0;

    /* Only those that are ready now: what they make ready waits for the next round. */
    for (const struct nc_stream *stream = thread->ready_first; stream != NULL;
         stream = stream->next_ready)
        count++;
    while (count-- > 0 && thread->ready_first != NULL) {
        struct nc_stream *stream = thread->ready_first;

        thread->ready_first = stream->next_ready;
        if (thread->ready_first == NULL)
            thread->ready_last = NULL;
        stream->ready = false;
        serve(stream);
    }
}

static int patience_ms(const struct nc_thread *thread)
{
    uint64_t now;

    if (thread->ready_first != NULL || thread->restless)
        return 0;
    if (thread->next_timer_ns == 0)
        return -1;
    now = nc_now_ns();
    if (thread->next_timer_ns <= now)
        return 0;
    return (int)((thread->next_timer_ns - now) / 1000000u) + 1;
}

static void *run(void *argument)
{
    struct nc_thread *thread = argument;
    struct epoll_event events[EVENTS];

    while (!atomic_load(&thread->engine->closing)) {
        int count = epoll_wait(thread->epoll_fd, events, EVENTS, patience_ms(thread));

        if (count > 0)
            take_events(thread, events, count);
        collect(thread);
        close_pipes(thread);
        run_timers(thread, nc_now_ns());
        serve_ready(thread);
    }
    collect(thread);
    while (thread->all != NULL) {
        nc_stream_break(thread->all, NC_ERR_CLOSED, 0);
        bury(thread->all);
    }
    close_pipes(thread);
    return NULL;
}

/* --- Life ----------------------------------------------------------------------------------------
 */

static int start_thread(struct nc_amst *engine, struct nc_thread *thread, struct nc_err *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &thread->wake_watch};
    int failure;

    thread->engine = engine;
    thread->wake_watch.kind = NC_WATCH_WAKE;
    (void)pthread_mutex_init(&thread->lock, NULL);
    thread->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    thread->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (thread->epoll_fd < 0 || thread->wake_fd < 0 ||
        epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, thread->wake_fd, &event) != 0)
        return nc_err_set(err, NC_ERR_SYSTEM, errno, "no descriptors for the engine's threads");
    failure = pthread_create(&thread->thread, NULL, run, thread);
    if (failure != 0)
        return nc_err_set(err, NC_ERR_SYSTEM, failure, "no thread for the engine");
    thread->started = true;
    (void)pthread_setname_np(thread->thread, "nc-amst");
    return NC_ERR_OK;
}

int nc_amst_open(const struct nc_amst_options *options, struct nc_amst **ret_engine,
                 struct nc_err *err)
{
    struct nc_amst *engine;
    int code;

    *ret_engine = NULL;
    if (options->threads < 1 ||
        options->threads > sizeof engine->threads / sizeof engine->threads[0])
        return nc_err_set(err, NC_ERR_INVALID, 0, "%u threads", options->threads);
    code = nc_crypto_load(NULL, err);
    if (code != NC_ERR_OK)
        return code;
    engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for an engine");
    (void)pthread_mutex_init(&engine->lock, NULL);
    for (size_t i = 0; i < sizeof engine->threads / sizeof engine->threads[0]; i++)
        engine->threads[i].epoll_fd = engine->threads[i].wake_fd = -1;
    nc_bucket_set(&engine->bucket, options->limit_bps, nc_now_ns());
    engine->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (engine->event_fd < 0) {
        code = nc_err_set(err, NC_ERR_SYSTEM, errno, "no descriptor for the engine's events");
        goto fail;
    }
    for (uint32_t i = 0; i < options->threads; i++) {
        engine->thread_count = i + 1;
        code = start_thread(engine, &engine->threads[i], err);
        if (code != NC_ERR_OK)
            goto fail;
    }
    *ret_engine = engine;
    return NC_ERR_OK;

fail:
    nc_amst_close(engine);
    return code;
}

void nc_amst_close(struct nc_amst *engine)
{
    if (engine == NULL)
        return;
    atomic_store(&engine->closing, true);
    for (uint32_t i = 0; i < engine->thread_count; i++) {
        struct nc_thread *thread = &engine->threads[i];

        if (thread->started) {
            nc_thread_wake(thread);
            (void)pthread_join(thread->thread, NULL);
        }
    }
    /* Nothing runs any more. Streams that ended are taken with their notices, links and objects one
     * by one. */
    if (engine->event_fd >= 0) {
        struct nc_amst_event events[EVENTS];

        while (nc_amst_poll(engine, events, EVENTS) > 0)
            ;
    }
    while (engine->links != NULL) {
        struct nc_amst_link *link = engine->links;

        nc_link_drop_objects(link);
        nc_amst_link_free(link);
    }
    for (uint32_t i = 0; i < engine->thread_count; i++) {
        struct nc_thread *thread = &engine->threads[i];

        while (thread->spares > 0)
            (void)munmap(thread->spare[--thread->spares], SLAB_BYTES);
        if (thread->epoll_fd >= 0)
            (void)close(thread->epoll_fd);
        if (thread->wake_fd >= 0)
            (void)close(thread->wake_fd);
        (void)pthread_mutex_destroy(&thread->lock);
    }
    if (engine->event_fd >= 0)
        (void)close(engine->event_fd);
    (void)pthread_mutex_destroy(&engine->lock);
    free(engine);
}
