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
#include "nc_codec.h"

#define EVENTS 64
uint64_t nc_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t nc_cpu_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- Notices --- */

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
        if (kind == NC_AMST_STREAM_LOST)
            memcpy(ret_event->why, ((const struct nc_stream *)(const void *)notice)->lost_why,
                   sizeof ret_event->why);
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

void nc_amst_limit(struct nc_amst *engine, uint64_t limit_bps)
{
    (void)pthread_mutex_lock(&engine->lock);
    nc_bucket_set(&engine->bucket, limit_bps, nc_now_ns());
    (void)pthread_mutex_unlock(&engine->lock);
    for (uint32_t i = 0; i < engine->thread_count; i++)
        nc_thread_wake(&engine->threads[i]);
}

/* --- Life --- */

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
    failure = pthread_create(&thread->thread, NULL, nc_thread_run, thread);
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
    engine->encode_cpu = options->encode_cpu;
    engine->encode_at_ns = nc_now_ns();
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

        for (size_t area = 0; area < NC_WORKS; area++)
            nc_slab_give(thread, thread->work[area]);
        nc_codec_close(thread->codec);
        while (thread->spares > 0)
            (void)munmap(thread->spare[--thread->spares], NC_SLAB_BYTES);
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
