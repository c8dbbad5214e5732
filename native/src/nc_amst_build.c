/* The frames a stream sends: what is next, read, sealed, and given to the mover. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nc_amst_internal.h"
#include "nc_crc.h"

static void put32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

uint8_t *nc_stream_area(struct nc_stream *stream)
{
    if (stream->out.slab == NULL && stream->channel == NULL)
        stream->out.slab = nc_slab_take(stream->thread);
    return stream->out.slab; /* a slot was acquired before there was work for it */
}

void nc_stream_area_back(struct nc_stream *stream)
{
    if (stream->channel != NULL)
        return; /* the next frame takes the slot, or the channel's end */
    nc_slab_give(stream->thread, stream->out.slab);
    stream->out.slab = NULL;
}

/* Writes the header and seals `size` bytes of content and `tail_size` behind it; the frame is then
 * one piece from `area` on. The content may lie in its place in `area` already. */
static int seal_with(struct nc_stream *stream, struct nc_frame *frame, uint8_t *area,
                     const uint8_t *content, size_t size, const uint8_t *tail, size_t tail_size)
{
    struct nc_direction *sending = &stream->sending;
    size_t total = NC_FRAME_HEADER_BYTES + size + tail_size;
    uint8_t *payload = area + NC_FRAME_HEADER_BYTES;

    frame->stream = stream->id;
    frame->epoch = sending->epoch;
    frame->sequence = sending->sequence;
    frame->wire_size = (uint32_t)(size + tail_size);
    nc_frame_write(frame, stream->link->seed, area);
    if (stream->link->options.encrypt != 0) {
        if (nc_aead_seal_with(sending->aead, frame->sequence, area, NC_FRAME_HEADER_BYTES, content,
                              size, tail, tail_size, payload, payload + size + tail_size,
                              NULL) != NC_ERR_OK) {
            nc_stream_break(stream, NC_ERR_SYSTEM, EIO);
            return NC_ERR_SYSTEM;
        }
        total += NC_CRYPTO_TAG_BYTES;
    } else {
        if (content != payload)
            memcpy(payload, content, size);
        if (tail_size > 0)
            memcpy(payload + size, tail, tail_size);
        if (nc_frame_trailer_bytes(frame, 0) != 0) {
            put32(payload + size, nc_crc32(stream->link->seed, payload, size));
            total += NC_FRAME_CHECKSUM_BYTES;
        }
    }
    sending->sequence++;
    sending->bytes += total;
    stream->out.part[0] = (struct iovec){.iov_base = area, .iov_len = total};
    stream->out.parts = 1;
    stream->out.active = true;
    return NC_ERR_OK;
}

/* The payload lies behind the header's place in `area`. */
static int seal(struct nc_stream *stream, struct nc_frame *frame, uint8_t *area, size_t size)
{
    return seal_with(stream, frame, area, area + NC_FRAME_HEADER_BYTES, size, NULL, 0);
}

/* The content stays where it is: header, content and checksum go out as three pieces. */
static void send_in_place(struct nc_stream *stream, struct nc_frame *frame,
                          struct nc_amst_object *object, uint64_t offset, size_t size,
                          uint32_t checksum)
{
    struct nc_outgoing *out = &stream->out;

    frame->stream = stream->id;
    frame->epoch = stream->sending.epoch;
    frame->sequence = stream->sending.sequence++;
    frame->wire_size = (uint32_t)size + NC_FRAME_CHECKSUM_BYTES;
    nc_frame_write(frame, stream->link->seed, out->small);
    put32(out->small + NC_FRAME_HEADER_BYTES, checksum);
    out->part[0] = (struct iovec){.iov_base = out->small, .iov_len = NC_FRAME_HEADER_BYTES};
    memcpy(&out->part[1].iov_base, &(const uint8_t *){object->source + offset}, sizeof(void *));
    out->part[1].iov_len = size;
    out->lender = object; /* stays its user until the last byte is with the kernel */
    out->part[2] = (struct iovec){.iov_base = out->small + NC_FRAME_HEADER_BYTES,
                                  .iov_len = NC_FRAME_CHECKSUM_BYTES};
    out->parts = 3;
    out->active = true;
}

/* The flight will not be sent; its object may be gone with it. */
static void drop_flight(struct nc_stream *stream, struct nc_flight *flight)
{
    struct nc_amst_object *object = flight->object;

    nc_flight_remove(stream, flight);
    free(flight->segment);
    free(flight);
    nc_object_release(object);
}

/* After the content is in memory. False: the object was aborted meanwhile, and the flight is gone.
 */
static bool built(struct nc_stream *stream, struct nc_flight *flight, bool keep_user)
{
    struct nc_amst_object *object = flight->object;
    bool good = !object->aborted;

    flight->building = false;
    if (!good)
        drop_flight(stream, flight);
    else if (!keep_user)
        nc_object_release(object);
    return good;
}

/* Turns the flight of one chunk that lies in a hole into one of all the hole's chunks. */
static void widen(struct nc_stream *stream, struct nc_flight *flight, uint64_t next_data)
{
    struct nc_amst_object *object = flight->object;
    uint64_t end = next_data >= object->size ? object->chunks : next_data / object->chunk;
    uint64_t saved = flight->bytes;
    uint64_t index = flight->first + 1;

    while (index < end && nc_bit(object->todo, index))
        nc_bit_clear(object->todo, index++);
    flight->frame = NC_FRAME_ZERO;
    flight->count = index - flight->first;
    flight->bytes =
        (index == object->chunks ? object->size : index * object->chunk) - flight->offset;
    for (uint64_t i = flight->first; i < index; i++) {
        uint32_t size = nc_object_chunk_size(object, i);

        object->leaves[i] = size == object->chunk ? object->zero_leaf : nc_crc32_zeros(0, size);
    }
    nc_flight_recredit(stream, flight, saved);
}

static bool build_chunk(struct nc_stream *stream, struct nc_flight *flight)
{
    struct nc_amst_link *link = stream->link;
    struct nc_amst_object *object = flight->object;
    struct nc_frame frame = {.type = NC_FRAME_DATA,
                             .object = object->number,
                             .generation = object->generation,
                             .offset = flight->offset};
    size_t size = (size_t)flight->bytes;
    struct nc_err err = {.code = NC_ERR_OK};
    bool lies_still = object->stable && object->source != NULL;
    bool in_place = lies_still && link->options.encrypt == 0 && stream->channel == NULL;
    const uint8_t *content = NULL;
    uint8_t *area = NULL;
    uint8_t tail[NC_FRAME_CHECKSUM_BYTES];
    uint32_t checksum;
    bool good;
    int code;

    if (object->sparse) {
        uint64_t next_data = nc_object_next_data(object, flight->offset);

        if (next_data >= flight->offset + size) {
            uint64_t length;

            (void)pthread_mutex_lock(&link->lock);
            widen(stream, flight, next_data);
            length = htobe64(flight->bytes);
            good = built(stream, flight, false);
            (void)pthread_mutex_unlock(&link->lock);
            if (!good)
                return true;
            frame.type = NC_FRAME_ZERO;
            memcpy(stream->out.small + NC_FRAME_HEADER_BYTES, &length, sizeof length);
            return seal(stream, &frame, stream->out.small, sizeof length) == NC_ERR_OK;
        }
    }
    frame.raw_size = (uint32_t)size;
    if (!in_place) {
        area = nc_stream_area(stream);
        if (area == NULL) {
            (void)pthread_mutex_lock(&link->lock);
            flight->building = false;
            nc_object_release(object);
            (void)pthread_mutex_unlock(&link->lock);
            nc_stream_break(stream, NC_ERR_MEMORY, ENOMEM);
            return false;
        }
        content = area + NC_FRAME_HEADER_BYTES;
    }
    if (lies_still) {
        content = object->source + flight->offset;
    } else if (nc_object_read(object, flight->offset, size, area + NC_FRAME_HEADER_BYTES, &err) !=
               NC_ERR_OK) {
        nc_stream_area_back(stream);
        (void)pthread_mutex_lock(&link->lock);
        nc_object_finish(object, err.code, err.os_errno);
        drop_flight(stream, flight);
        (void)pthread_mutex_unlock(&link->lock);
        return true;
    }
    checksum = nc_crc32(0, content, size);
    (void)pthread_mutex_lock(&link->lock);
    object->leaves[flight->first] = checksum;
    good = built(stream, flight, lies_still);
    (void)pthread_mutex_unlock(&link->lock);
    if (!good) {
        nc_stream_area_back(stream);
        return true;
    }
    if (in_place) {
        send_in_place(stream, &frame, object, flight->offset, size, checksum);
        return true;
    }
    put32(tail, checksum);
    code = seal_with(stream, &frame, area, content, size, tail, sizeof tail);
    if (lies_still) {
        (void)pthread_mutex_lock(&link->lock);
        nc_object_release(object);
        (void)pthread_mutex_unlock(&link->lock);
    }
    return code == NC_ERR_OK;
}

static bool build_segment(struct nc_stream *stream, struct nc_flight *flight)
{
    struct nc_amst_link *link = stream->link;
    struct nc_amst_object *object = flight->object;
    struct nc_frame frame = {
        .type = NC_FRAME_SEGMENT, .object = object->number, .generation = object->generation};
    struct nc_segment *segment = flight->segment;
    uint8_t *area;
    bool good;

    if (segment == NULL) {
        segment = nc_pipe_read(object, stream);
        (void)pthread_mutex_lock(&link->lock);
        if (segment == NULL) {
            drop_flight(stream, flight);
            (void)pthread_mutex_unlock(&link->lock);
            return true;
        }
        flight->segment = segment;
        flight->offset = segment->offset;
        flight->bytes = segment->size;
        flight->credit = segment->size;
        nc_flight_charge(stream, flight);
        /* There may be more where this came from, for another stream. */
        nc_link_wake(link, 1);
        (void)pthread_mutex_unlock(&link->lock);
    }
    area = nc_stream_area(stream);
    (void)pthread_mutex_lock(&link->lock);
    if (area != NULL)
        memcpy(area + NC_FRAME_HEADER_BYTES, segment->data, segment->size);
    frame.offset = segment->offset;
    frame.raw_size = (uint32_t)segment->size;
    good = built(stream, flight, false);
    (void)pthread_mutex_unlock(&link->lock);
    if (area == NULL) {
        nc_stream_break(stream, NC_ERR_MEMORY, ENOMEM);
        return false;
    }
    if (!good) {
        nc_stream_area_back(stream);
        return true;
    }
    put32(area + NC_FRAME_HEADER_BYTES + frame.raw_size,
          nc_crc32(0, area + NC_FRAME_HEADER_BYTES, frame.raw_size));
    return seal(stream, &frame, area, frame.raw_size + NC_FRAME_CHECKSUM_BYTES) == NC_ERR_OK;
}

static bool build_bare(struct nc_stream *stream, uint8_t type, const struct nc_flight *flight)
{
    struct nc_frame frame = {.type = type};

    if (flight != NULL) {
        frame.object = flight->object->number;
        frame.generation = flight->object->generation;
        frame.offset = flight->offset;
    }
    return seal(stream, &frame, stream->out.small, 0) == NC_ERR_OK;
}

static bool build_acks(struct nc_stream *stream, const struct nc_frame_ack *acks, size_t count)
{
    struct nc_frame frame = {.type = NC_FRAME_ACK};

    for (size_t i = 0; i < count; i++)
        nc_frame_ack_write(&acks[i],
                           stream->out.small + NC_FRAME_HEADER_BYTES + i * NC_FRAME_ACK_BYTES);
    return seal(stream, &frame, stream->out.small, count * NC_FRAME_ACK_BYTES) == NC_ERR_OK;
}

/* True when there is a frame to send, or when it is worth asking again at once. */
bool nc_stream_next_frame(struct nc_stream *stream)
{
    struct nc_amst_link *link = stream->link;
    struct nc_frame_ack acks[NC_ACKS_FRAME];
    struct nc_work work;
    uint64_t now;
    uint64_t wake_ns;
    enum nc_idle why;
    size_t count;
    struct nc_err err;

    if (stream->state == NC_AMST_STREAM_GREETING)
        return false;
    if (nc_stream_rekey(stream, &err) != NC_ERR_OK) {
        nc_stream_break(stream, NC_ERR_SYSTEM, EIO);
        return false;
    }
    (void)pthread_mutex_lock(&link->lock);
    count = stream->ack_count < NC_ACKS_FRAME ? stream->ack_count : NC_ACKS_FRAME;
    if (count > 0) {
        memcpy(acks, stream->acks, count * sizeof acks[0]);
        stream->ack_count -= count;
        memmove(stream->acks, stream->acks + count, stream->ack_count * sizeof acks[0]);
        (void)pthread_mutex_unlock(&link->lock);
        return build_acks(stream, acks, count);
    }
    if (stream->said_bye && stream->heard_bye) {
        (void)pthread_mutex_unlock(&link->lock);
        /* Over RDMA when it is delivered, which the channel's next completion tells. */
        if (stream->channel == NULL)
            nc_stream_break(stream, NC_ERR_OK, 0);
        return false;
    }
    (void)pthread_mutex_unlock(&link->lock);
    if (stream->channel != NULL ? !nc_amst_rdma_roomy(stream) : !nc_tcp_roomy(stream)) {
        stream->blocked = true;
        return false;
    }
    now = nc_now_ns();
    (void)pthread_mutex_lock(&link->lock);
    why = nc_schedule(stream, now, &work, &wake_ns);
    if (work.kind == NC_WORK_NONE) {
        nc_link_idle(stream, why, now);
        stream->wake_ns = wake_ns;
        nc_thread_timer(stream->thread, wake_ns);
    } else {
        nc_link_not_idle(stream, now);
        stream->wake_ns = 0;
        if (work.kind == NC_WORK_END)
            work.flight->building = false;
    }
    (void)pthread_mutex_unlock(&link->lock);
    switch (work.kind) {
    case NC_WORK_CHUNK:
        return build_chunk(stream, work.flight);
    case NC_WORK_SEGMENT:
        return build_segment(stream, work.flight);
    case NC_WORK_END:
        return build_bare(stream, NC_FRAME_END, work.flight);
    case NC_WORK_BYE:
        stream->said_bye = true;
        return build_bare(stream, NC_FRAME_BYE, NULL);
    case NC_WORK_NONE:
        break;
    }
    return false;
}

void nc_stream_transmit(struct nc_stream *stream)
{
    int sent;

    if (!stream->out.active && !nc_stream_next_frame(stream))
        return;
    if (stream->broken)
        return;
    if (stream->out.active) {
        sent = stream->channel != NULL ? nc_amst_rdma_send(stream) : nc_tcp_send(stream);
        if (sent < 0)
            return;
        if (sent == 0) {
            stream->blocked = true;
            return;
        }
        nc_stream_area_back(stream);
        stream->out.active = false;
    }
    nc_thread_ready(stream);
}
