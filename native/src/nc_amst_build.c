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

int nc_stream_seal(struct nc_stream *stream, struct nc_frame *frame, uint8_t *area,
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
            put32(payload + size + tail_size,
                  nc_crc32(stream->link->seed, payload, size + tail_size));
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
    return nc_stream_seal(stream, frame, area, area + NC_FRAME_HEADER_BYTES, size, NULL, 0);
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
            nc_flight_drop(stream, flight);
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
    good = nc_flight_built(stream, flight, false);
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
        return nc_stream_build_chunk(stream, work.flight);
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
        uint64_t began = nc_now_ns();
        uint64_t before = atomic_load_explicit(&stream->wire_sent_bytes, memory_order_relaxed);

        sent = stream->channel != NULL ? nc_amst_rdma_send(stream) : nc_tcp_send(stream);
        stream->spent_ns += nc_now_ns() - began;
        stream->spent_wire +=
            atomic_load_explicit(&stream->wire_sent_bytes, memory_order_relaxed) - before;
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
