/* What arrives for an object: checked against what was agreed on, written, acknowledged. */
#include <errno.h>
#include <stdlib.h>

#include "nc_amst_internal.h"
#include "nc_crc.h"

void nc_ack_queue(struct nc_stream *stream, int kind, const struct nc_frame *frame, uint64_t offset,
                  uint64_t value)
{
    struct nc_frame_ack ack = {.kind = (uint8_t)kind,
                               .object = frame->object,
                               .generation = frame->generation,
                               .offset = offset,
                               .value = value};

    /* Of a byte stream only the newest place counts. */
    for (size_t i = 0; kind == NC_ACK_READ && i < stream->ack_count; i++) {
        struct nc_frame_ack *old = &stream->acks[i];

        if (old->kind == NC_ACK_READ && old->object == ack.object &&
            old->generation == ack.generation) {
            old->offset = offset;
            return;
        }
    }
    if (stream->ack_count < NC_ACKS_HELD) {
        stream->acks[stream->ack_count++] = ack;
    } else {
        /* One that is lost would be waited for: better to lose the stream, and send again. */
        atomic_store(&stream->killed, true);
        nc_link_kick(stream);
    }
}

static void refuse(struct nc_stream *stream, const struct nc_frame *frame, int code, int os_errno)
{
    nc_ack_queue(stream, NC_ACK_REFUSED, frame, (uint64_t)os_errno, nc_frame_error_number(code));
}

struct nc_amst_object *nc_object_of_frame(struct nc_stream *stream, const struct nc_frame *frame)
{
    struct nc_amst_object *object =
        nc_object_find(stream->link->incoming, frame->object, frame->generation);

    if (object == NULL) {
        refuse(stream, frame, NC_ERR_NOT_FOUND, 0);
    } else if (object->finished && object->info.code != NC_ERR_OK) {
        refuse(stream, frame, object->info.code, object->info.os_errno);
        object = NULL;
    }
    return object;
}

static void fail(struct nc_stream *stream, struct nc_amst_object *object,
                 const struct nc_frame *frame, int code, int os_errno)
{
    nc_object_finish(object, code, os_errno);
    refuse(stream, frame, code, os_errno);
}

void nc_receive_chunk(struct nc_stream *stream, const struct nc_frame *frame, const uint8_t *data,
                      uint32_t checksum)
{
    struct nc_amst_link *link = stream->link;
    struct nc_amst_object *object;
    struct nc_err err = {.code = NC_ERR_OK};
    uint64_t index;

    (void)pthread_mutex_lock(&link->lock);
    object = nc_object_of_frame(stream, frame);
    if (object == NULL)
        goto out;
    index = frame->offset / object->chunk;
    if (object->pipe != NULL || frame->offset % object->chunk != 0 || index >= object->chunks ||
        frame->raw_size != nc_object_chunk_size(object, index)) {
        fail(stream, object, frame, NC_ERR_PROTOCOL, 0);
        goto out;
    }
    if (nc_bit(object->done, index) || nc_bit(object->todo, index)) {
        /* Here, or just being written by another thread: a second copy is worth nothing. */
        link->info.duplicate_bytes += frame->raw_size;
        nc_ack_queue(stream, NC_ACK_CHUNK, frame, frame->offset, frame->raw_size);
        goto out;
    }
    nc_bit_set(object->todo, index);
    object->users++;
    (void)pthread_mutex_unlock(&link->lock);
    (void)nc_object_write(object, frame->offset, frame->raw_size, data, &err);
    (void)pthread_mutex_lock(&link->lock);
    nc_bit_clear(object->todo, index);
    if (err.code != NC_ERR_OK) {
        fail(stream, object, frame, err.code, err.os_errno);
    } else {
        object->leaves[index] = checksum;
        stream->received_bytes += frame->raw_size;
        link->info.received_bytes += frame->raw_size;
        nc_ack_queue(stream, NC_ACK_CHUNK, frame, frame->offset, frame->raw_size);
        if (!object->aborted)
            nc_object_chunks_done(object, index, 1, frame->raw_size);
    }
    nc_object_release(object);
out:
    (void)pthread_mutex_unlock(&link->lock);
}

/* Zeros where something else may lie: a target that is not known to read as zero is written. */
static int write_zeros(const struct nc_amst_object *object, uint64_t offset, uint64_t length,
                       struct nc_err *err)
{
    static const uint8_t zeros[65536];

    while (length > 0) {
        size_t part = length < sizeof zeros ? (size_t)length : sizeof zeros;
        int code = nc_object_write(object, offset, part, zeros, err);

        if (code != NC_ERR_OK)
            return code;
        offset += part;
        length -= part;
    }
    return NC_ERR_OK;
}

void nc_receive_zero(struct nc_stream *stream, const struct nc_frame *frame, uint64_t length)
{
    struct nc_amst_link *link = stream->link;
    struct nc_amst_object *object;
    struct nc_err err = {.code = NC_ERR_OK};
    uint64_t first;
    uint64_t last;

    (void)pthread_mutex_lock(&link->lock);
    object = nc_object_of_frame(stream, frame);
    if (object == NULL)
        goto out;
    if (object->pipe != NULL || length == 0 || frame->offset % object->chunk != 0 ||
        frame->offset >= object->size || length > object->size - frame->offset ||
        (length % object->chunk != 0 && frame->offset + length != object->size)) {
        fail(stream, object, frame, NC_ERR_PROTOCOL, 0);
        goto out;
    }
    first = frame->offset / object->chunk;
    last = first + (length - 1) / object->chunk;
    if (!object->sparse) {
        object->users++;
        (void)pthread_mutex_unlock(&link->lock);
        (void)write_zeros(object, frame->offset, length, &err);
        (void)pthread_mutex_lock(&link->lock);
        nc_object_release(object);
        if (err.code != NC_ERR_OK) {
            fail(stream, object, frame, err.code, err.os_errno);
            goto out;
        }
    }
    for (uint64_t i = first; i <= last; i++) {
        uint32_t size = nc_object_chunk_size(object, i);

        if (!nc_bit(object->done, i))
            object->leaves[i] = size == object->chunk ? object->zero_leaf : nc_crc32_zeros(0, size);
    }
    nc_ack_queue(stream, NC_ACK_ZERO, frame, frame->offset, length);
    if (!object->aborted) {
        object->info.zero_bytes += length;
        nc_object_chunks_done(object, first, last - first + 1, 0);
    }
out:
    (void)pthread_mutex_unlock(&link->lock);
}
