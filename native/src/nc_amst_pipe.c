/* Byte streams: read from a descriptor here, written to one over there, in order.
 *
 * The sender keeps a segment until the other side has it, so that a dead stream loses nothing; the
 * receiver keeps one until everything before it is written. Both are bounded by the pipe's window.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nc_amst_internal.h"

/* Read into, where the descriptor does not say how much there is. */
#define GUESS_BYTES 4096

int nc_pipe_wait(struct nc_amst_object *object, uint32_t events)
{
    struct nc_pipe *pipe = object->pipe;
    struct epoll_event event = {.events = events | EPOLLONESHOT, .data.ptr = &pipe->watch};

    pipe->waiting = true;
    if (epoll_ctl(pipe->home->epoll_fd, pipe->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, pipe->fd,
                  &event) != 0) {
        nc_object_finish(object, NC_ERR_SYSTEM, errno);
        return NC_ERR_SYSTEM;
    }
    pipe->registered = true;
    return NC_ERR_OK;
}

void nc_pipe_event(struct nc_amst_object *object)
{
    struct nc_amst_link *link = object->link;

    (void)pthread_mutex_lock(&link->lock);
    object->pipe->waiting = false;
    if (!object->aborted && !object->finished) {
        if (object->role == NC_OBJECT_SEND)
            nc_link_wake(link, 1);
        else
            nc_pipe_pump(object);
    }
    (void)pthread_mutex_unlock(&link->lock);
}

void nc_pipe_close(struct nc_amst_object *object)
{
    struct nc_amst_link *link = object->link;
    struct nc_pipe *pipe = object->pipe;

    if (pipe->registered)
        (void)epoll_ctl(pipe->home->epoll_fd, EPOLL_CTL_DEL, pipe->fd, NULL);
    (void)pthread_mutex_lock(&link->lock);
    nc_object_release(object);
    (void)pthread_mutex_unlock(&link->lock);
}

/* --- Sending --- */

struct nc_segment *nc_pipe_read(struct nc_amst_object *object, struct nc_stream *stream)
{
    struct nc_amst_link *link = stream->link;
    struct nc_pipe *pipe = object->pipe;
    struct nc_segment *segment;
    size_t room = object->chunk;
    int there = 0;
    ssize_t got;
    int failure;

    (void)pthread_mutex_lock(&link->lock);
    if (pipe->window - (pipe->next - pipe->read) < room)
        room = (size_t)(pipe->window - (pipe->next - pipe->read));
    (void)pthread_mutex_unlock(&link->lock);
    if (ioctl(pipe->fd, FIONREAD, &there) != 0 || there < GUESS_BYTES)
        there = GUESS_BYTES;
    if ((size_t)there < room)
        room = (size_t)there;
    segment = malloc(sizeof *segment + room);
    do {
        got = segment == NULL ? -1 : read(pipe->fd, segment->data, room);
        failure = segment == NULL ? ENOMEM : errno;
    } while (got < 0 && failure == EINTR);

    (void)pthread_mutex_lock(&link->lock);
    pipe->busy = false;
    if (got > 0) {
        segment->next = NULL;
        segment->offset = pipe->next;
        segment->size = (size_t)got;
        segment->taken = 0;
        pipe->next += (size_t)got;
    } else {
        free(segment);
        segment = NULL;
        if (got == 0) {
            pipe->end_known = true;
            pipe->end = pipe->next;
            nc_link_wake(link, 1);
        } else if (failure == EAGAIN || failure == EWOULDBLOCK) {
            if (!object->aborted)
                (void)nc_pipe_wait(object, EPOLLIN);
        } else {
            nc_object_finish(object, failure == ENOMEM ? NC_ERR_MEMORY : NC_ERR_SYSTEM, failure);
        }
    }
    (void)pthread_mutex_unlock(&link->lock);
    return segment;
}

void nc_pipe_read_ack(struct nc_amst_object *object)
{
    const struct nc_pipe *pipe = object->pipe;

    object->info.done_bytes = pipe->read;
    if (pipe->end_acked && pipe->end_known && pipe->read == pipe->end)
        nc_object_finish(object, NC_ERR_OK, 0);
}

/* --- Receiving --- */

static void tell(struct nc_amst_object *object, int kind, uint64_t offset, uint64_t value)
{
    struct nc_frame frame = {.object = object->number, .generation = object->generation};
    struct nc_stream *stream = object->link->streams;

    while (stream != NULL && stream->state != NC_AMST_STREAM_OPEN)
        stream = stream->next_in_link;
    if (stream == NULL)
        return; /* told again as soon as there is one */
    nc_ack_queue(stream, kind, &frame, offset, value);
    nc_link_kick(stream);
}

void nc_pipe_acknowledge_again(struct nc_amst_link *link)
{
    for (struct nc_amst_object *object = link->incoming; object != NULL; object = object->next) {
        if (object->pipe != NULL && object->info.code == NC_ERR_OK)
            tell(object, NC_ACK_READ, object->pipe->next, 0);
    }
}

static ssize_t write_some(const struct nc_pipe *pipe, const uint8_t *data, size_t size)
{
    ssize_t put;

    do {
        put = pipe->socket ? send(pipe->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT)
                           : write(pipe->fd, data, size);
    } while (put < 0 && errno == EINTR);
    return put;
}

static void write_segments(struct nc_amst_object *object)
{
    struct nc_amst_link *link = object->link;
    struct nc_pipe *pipe = object->pipe;

    while (pipe->segments != NULL && !object->aborted &&
           pipe->segments->offset + pipe->segments->taken == pipe->next) {
        struct nc_segment *segment = pipe->segments;
        ssize_t put;
        int failure;

        (void)pthread_mutex_unlock(&link->lock);
        put = write_some(pipe, segment->data + segment->taken, segment->size - segment->taken);
        failure = errno;
        (void)pthread_mutex_lock(&link->lock);
        if (put < 0 && (failure == EAGAIN || failure == EWOULDBLOCK)) {
            if (!object->aborted)
                (void)nc_pipe_wait(object, EPOLLOUT);
            return;
        }
        if (put < 0) {
            nc_object_finish(object, NC_ERR_SYSTEM, failure);
            tell(object, NC_ACK_REFUSED, (uint64_t)failure, nc_frame_error_number(NC_ERR_SYSTEM));
            return;
        }
        segment->taken += (size_t)put;
        pipe->next += (size_t)put;
        object->info.done_bytes += (size_t)put;
        object->info.moved_bytes += (size_t)put;
        link->info.received_bytes += (size_t)put;
        if (segment->taken == segment->size) {
            pipe->segments = segment->next;
            free(segment);
        }
    }
}

void nc_pipe_pump(struct nc_amst_object *object)
{
    struct nc_pipe *pipe = object->pipe;

    if (pipe->busy || pipe->waiting || object->finished)
        return;
    pipe->busy = true;
    object->users++;
    write_segments(object);
    pipe->busy = false;
    if (!object->finished && pipe->end_known && pipe->next == pipe->end) {
        if (pipe->socket)
            (void)shutdown(pipe->fd, SHUT_WR);
        nc_object_finish(object, NC_ERR_OK, 0);
        tell(object, NC_ACK_READ, object->pipe->next, 0);
    } else if (pipe->next - pipe->read >= pipe->window / 4 ||
               (pipe->next != pipe->read && pipe->segments == NULL)) {
        pipe->read = pipe->next;
        tell(object, NC_ACK_READ, object->pipe->next, 0);
    }
    nc_object_release(object);
}

/* Where a segment belongs among those that wait; NULL: it is there, or breaks the order
 * (*ret_broken). */
static struct nc_segment **place(struct nc_pipe *pipe, uint64_t offset, uint64_t size,
                                 bool *ret_broken)
{
    struct nc_segment **at = &pipe->segments;

    *ret_broken = false;
    if (offset + size <= pipe->next)
        return NULL;
    while (*at != NULL && (*at)->offset < offset) {
        if ((*at)->offset + (*at)->size > offset)
            *ret_broken = true;
        at = &(*at)->next;
    }
    if (*at != NULL && (*at)->offset == offset && (*at)->size == size)
        return NULL;
    if (offset < pipe->next || (*at != NULL && (*at)->offset < offset + size))
        *ret_broken = true;
    return *ret_broken ? NULL : at;
}

int nc_receive_segment(struct nc_stream *stream, const struct nc_frame *frame, const uint8_t *data)
{
    struct nc_amst_link *link = stream->link;
    struct nc_segment *segment = NULL;
    struct nc_amst_object *object;
    struct nc_pipe *pipe;
    int code = NC_ERR_OK;
    bool broken = false;

    if (data != NULL) {
        segment = malloc(sizeof *segment + frame->raw_size);
        if (segment == NULL)
            return NC_ERR_MEMORY;
        segment->offset = frame->offset;
        segment->size = frame->raw_size;
        segment->taken = 0;
        memcpy(segment->data, data, frame->raw_size);
    }
    (void)pthread_mutex_lock(&link->lock);
    object = nc_object_of_frame(stream, frame);
    if (object == NULL)
        goto out;
    pipe = object->pipe;
    code = NC_ERR_PROTOCOL;
    if (pipe == NULL)
        goto out;
    if (data == NULL) {
        if (pipe->end_known && pipe->end != frame->offset)
            goto out;
        pipe->end_known = true;
        pipe->end = frame->offset;
    } else {
        struct nc_segment **at;

        if (frame->offset > pipe->next + pipe->window + link->options.max_chunk ||
            (pipe->end_known && frame->offset + frame->raw_size > pipe->end))
            goto out;
        at = place(pipe, frame->offset, frame->raw_size, &broken);
        if (broken)
            goto out;
        if (at != NULL) {
            segment->next = *at;
            *at = segment;
            segment = NULL;
            stream->received_bytes += frame->raw_size;
        } else {
            link->info.duplicate_bytes += frame->raw_size;
        }
    }
    code = NC_ERR_OK;
    nc_ack_queue(stream, NC_ACK_SEGMENT, frame, frame->offset, frame->raw_size);
    nc_pipe_pump(object);
out:
    (void)pthread_mutex_unlock(&link->lock);
    free(segment);
    return code;
}

/* --- Making --- */

static int open_pipe(struct nc_amst_link *link, enum nc_object_role role, uint64_t tag,
                     uint32_t number, int fd, uint32_t chunk, uint32_t priority, uint64_t window,
                     struct nc_amst_object **ret_object, struct nc_err *err)
{
    struct nc_amst_object *object = calloc(1, sizeof *object);
    struct nc_pipe *pipe = calloc(1, sizeof *pipe);
    int type;
    socklen_t size = sizeof type;
    int flags;
    int code;

    *ret_object = NULL;
    if (object == NULL || pipe == NULL) {
        free(object);
        free(pipe);
        return nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for a byte stream");
    }
    object->pipe = pipe;
    object->notice.subject = NC_SUBJECT_OBJECT;
    object->link = link;
    object->role = role;
    object->tag = tag;
    object->number = number;
    object->fd = -1;
    object->chunk = chunk;
    object->class = nc_class_of(priority);
    object->users = 1; /* the watch; given back when it is closed */
    pipe->watch.kind = NC_WATCH_PIPE;
    pipe->watch.subject = object;
    pipe->window = window;
    pipe->home = nc_thread_choose(link->engine);
    pipe->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    flags = pipe->fd < 0 ? -1 : fcntl(pipe->fd, F_GETFL);
    if (flags < 0 || fcntl(pipe->fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        code = nc_err_set(err, NC_ERR_INVALID, errno, "the descriptor cannot be used");
        goto fail;
    }
    pipe->socket = getsockopt(pipe->fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
    if (chunk == 0 || chunk > link->options.max_chunk || window == 0) {
        code = nc_err_set(err, NC_ERR_INVALID, 0, "pieces of %u bytes, a window of %llu", chunk,
                          (unsigned long long)window);
        goto fail;
    }
    object->todo = calloc(1, sizeof *object->todo);
    object->done = calloc(1, sizeof *object->done);
    if (object->todo == NULL || object->done == NULL) {
        code = nc_err_set(err, NC_ERR_MEMORY, ENOMEM, "no memory for a byte stream");
        goto fail;
    }
    code = nc_object_enlist(object, err);
    if (code != NC_ERR_OK)
        goto fail;
    *ret_object = object;
    return NC_ERR_OK;

fail:
    nc_amst_object_free(object);
    return code;
}

int nc_amst_pipe_send(struct nc_amst_link *link, uint64_t tag, uint32_t number, int fd,
                      uint32_t chunk, uint32_t priority, uint64_t window,
                      struct nc_amst_object **ret_object, struct nc_err *err)
{
    return open_pipe(link, NC_OBJECT_SEND, tag, number, fd, chunk, priority, window, ret_object,
                     err);
}

int nc_amst_pipe_receive(struct nc_amst_link *link, uint64_t tag, uint32_t number, int fd,
                         uint64_t window, struct nc_amst_object **ret_object, struct nc_err *err)
{
    return open_pipe(link, NC_OBJECT_RECEIVE, tag, number, fd, link->options.max_chunk, 0, window,
                     ret_object, err);
}
