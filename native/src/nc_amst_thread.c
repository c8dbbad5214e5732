/* What a thread of the engine does: it waits for sockets, and gives its streams their turns. */
#define _GNU_SOURCE

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nc_amst_internal.h"
#include "nc_codec.h"

#define EVENTS 64

/* --- Slabs --- */

uint8_t *nc_slab_take(struct nc_thread *thread)
{
    void *slab;

    if (thread->spares > 0)
        return thread->spare[--thread->spares];
    slab = mmap(NULL, NC_SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
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
        (void)munmap(slab, NC_SLAB_BYTES);
}

uint8_t *nc_thread_work(struct nc_thread *thread, enum nc_work_area area)
{
    if (thread->work[area] == NULL)
        thread->work[area] = nc_slab_take(thread);
    return thread->work[area];
}

struct nc_codec *nc_thread_codec(struct nc_thread *thread)
{
    if (thread->codec == NULL)
        (void)nc_codec_open(&thread->codec, NULL);
    return thread->codec;
}

/* --- Threads --- */

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

void *nc_thread_run(void *argument)
{
    struct nc_thread *thread = argument;
    struct epoll_event events[EVENTS];

    while (!atomic_load(&thread->engine->closing)) {
        int patience = patience_ms(thread);
        uint64_t began = patience != 0 ? nc_now_ns() : 0;
        int count = epoll_wait(thread->epoll_fd, events, EVENTS, patience);

        if (patience != 0)
            (void)atomic_fetch_add_explicit(&thread->idle_ns, nc_now_ns() - began,
                                            memory_order_relaxed);
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
