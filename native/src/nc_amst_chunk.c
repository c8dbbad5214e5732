/* The frames that carry a chunk of an object: looked for among holes, read, encoded, sealed. */
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

/* Turns the flight of one chunk that lies in a hole into one of all the hole's chunks. */
static void widen(struct nc_stream *stream, struct nc_flight *flight, uint64_t next_data)
{
    struct nc_amst_object *object = flight->object;
    uint64_t end = next_data >= object->size ? object->chunks : next_data / object->chunk;
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
    nc_flight_shrink(stream, flight, 0);
}

/* A frame without bytes for the zeros of the flight. The lock is held, and given back. */
static bool send_zeros(struct nc_stream *stream, struct nc_flight *flight, uint64_t next_data)
{
    struct nc_amst_object *object = flight->object;
    struct nc_frame frame = {.type = NC_FRAME_ZERO,
                             .object = object->number,
                             .generation = object->generation,
                             .offset = flight->offset};
    uint64_t length;
    bool good;

    widen(stream, flight, next_data);
    object->coded.zero_chunks += flight->count;
    object->coded.zero_bytes += flight->bytes;
    length = htobe64(flight->bytes);
    good = nc_flight_built(stream, flight, false);
    (void)pthread_mutex_unlock(&stream->link->lock);
    if (!good)
        return true;
    memcpy(stream->out.small + NC_FRAME_HEADER_BYTES, &length, sizeof length);
    return nc_stream_seal(stream, &frame, stream->out.small,
                          stream->out.small + NC_FRAME_HEADER_BYTES, sizeof length, NULL,
                          0) == NC_ERR_OK;
}

static bool no_memory(struct nc_stream *stream, struct nc_flight *flight)
{
    (void)pthread_mutex_lock(&stream->link->lock);
    flight->building = false;
    nc_object_release(flight->object);
    (void)pthread_mutex_unlock(&stream->link->lock);
    nc_stream_break(stream, NC_ERR_MEMORY, ENOMEM);
    return false;
}

/* The chunk's content, in `area` or where it lies. NULL: it could not be read, and the object
 * failed.
 */
static const uint8_t *load(struct nc_stream *stream, struct nc_flight *flight, bool lies_still,
                           uint8_t *area)
{
    struct nc_amst_object *object = flight->object;
    struct nc_err err = {.code = NC_ERR_OK};

    if (lies_still)
        return object->source + flight->offset;
    area += NC_FRAME_HEADER_BYTES;
    if (nc_object_read(object, flight->offset, (size_t)flight->bytes, area, &err) == NC_ERR_OK)
        return area;
    nc_stream_area_back(stream);
    (void)pthread_mutex_lock(&stream->link->lock);
    nc_object_finish(object, err.code, err.os_errno);
    nc_flight_drop(stream, flight);
    (void)pthread_mutex_unlock(&stream->link->lock);
    return NULL;
}

bool nc_stream_build_chunk(struct nc_stream *stream, struct nc_flight *flight)
{
    struct nc_amst_link *link = stream->link;
    struct nc_amst_object *object = flight->object;
    struct nc_frame frame = {.type = NC_FRAME_DATA,
                             .object = object->number,
                             .generation = object->generation,
                             .offset = flight->offset,
                             .raw_size = (uint32_t)flight->bytes};
    size_t size = (size_t)flight->bytes;
    bool counts = object->coding.policy != NC_AMST_CODING_OFF;
    bool lies_still = object->stable && object->source != NULL;
    bool in_place = lies_still && link->options.encrypt == 0 && stream->channel == NULL;
    struct nc_coded coded = {.data = NULL};
    uint64_t read_ns = 0;
    uint64_t seal_ns = 0;
    uint64_t began = nc_now_ns();
    uint64_t loaded;
    const uint8_t *content;
    uint8_t *area = NULL;
    uint8_t tail[NC_FRAME_CHECKSUM_BYTES];
    uint32_t checksum;
    bool good;
    int code = NC_ERR_OK;

    if (object->sparse) {
        uint64_t next_data = nc_object_next_data(object, flight->offset);

        if (next_data >= flight->offset + size) {
            (void)pthread_mutex_lock(&link->lock);
            return send_zeros(stream, flight, next_data);
        }
    }
    if (!in_place) {
        area = nc_stream_area(stream);
        if (area == NULL)
            return no_memory(stream, flight);
    }
    if (counts)
        read_ns = nc_cpu_ns();
    content = load(stream, flight, lies_still, area);
    if (content == NULL)
        return true;
    checksum = nc_crc32(0, content, size);
    loaded = nc_now_ns();
    if (counts) {
        read_ns = nc_cpu_ns() - read_ns;
        nc_encode(stream, flight, content, size, &coded);
    }
    if (in_place && coded.data != NULL) {
        area = nc_stream_area(stream);
        if (area == NULL)
            return no_memory(stream, flight);
    }
    (void)pthread_mutex_lock(&link->lock);
    if (counts) {
        nc_encode_charge(object, NC_AMST_STAGE_READ, read_ns);
        nc_hde_learn_rest(&link->chooser, size, (double)(loaded - began), stream->spent_wire,
                          (double)stream->spent_ns);
        stream->spent_wire = stream->spent_ns = 0;
    }
    if (coded.zero) {
        nc_stream_area_back(stream);
        return send_zeros(stream, flight, flight->offset + size);
    }
    object->leaves[flight->first] = checksum;
    flight->delta = (coded.flags & NC_FRAME_DELTA) != 0;
    nc_flight_built_as(stream, flight, coded.data != NULL ? coded.size : size);
    good = nc_flight_built(stream, flight, lies_still || counts);
    (void)pthread_mutex_unlock(&link->lock);
    if (!good) {
        nc_stream_area_back(stream);
        return true;
    }
    if (in_place && coded.data == NULL) {
        send_in_place(stream, &frame, object, flight->offset, size, checksum);
        return true;
    }
    put32(tail, checksum);
    frame.codec = coded.codec;
    frame.flags = coded.flags;
    frame.base = coded.base;
    if (counts)
        seal_ns = nc_cpu_ns();
    loaded = nc_now_ns();
    if (coded.data != NULL)
        code = nc_stream_seal(stream, &frame, area, coded.data, coded.size, tail, sizeof tail);
    else
        code = nc_stream_seal(stream, &frame, area, content, size, tail, sizeof tail);
    stream->spent_ns += nc_now_ns() - loaded;
    if (lies_still || counts) {
        (void)pthread_mutex_lock(&link->lock);
        if (counts)
            nc_encode_charge(object, NC_AMST_STAGE_SEAL, nc_cpu_ns() - seal_ns);
        nc_object_release(object);
        (void)pthread_mutex_unlock(&link->lock);
    }
    return code == NC_ERR_OK;
}
