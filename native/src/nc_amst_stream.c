/* A stream's life in its thread: greeting, the frames it makes, the frames it takes. What carries
 * the bytes is a mover's business. */
#define _GNU_SOURCE

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "nc_amst_internal.h"
#include "nc_crc.h"
#include "nc_rdma.h"

#define GREETING_PAYLOAD 32

static void put32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

/* --- Keys
 * -------------------------------------------------------------------------------------------- */

static int open_key(const struct nc_stream *stream, bool sending, uint32_t epoch,
                    struct nc_aead **ret_aead, struct nc_err *err)
{
    const struct nc_amst_link_options *options = &stream->link->options;
    int direction = (options->initiator != 0) == sending ? 0 : 1;
    struct nc_frame_key key;
    int code =
        nc_frame_key(options->secret, options->context, direction, stream->id, epoch, &key, err);

    if (code == NC_ERR_OK)
        code = nc_aead_open(key.key, key.iv, sending, ret_aead, err);
    nc_crypto_wipe(&key, sizeof key);
    return code;
}

int nc_stream_keys(struct nc_stream *stream, struct nc_err *err)
{
    int code = open_key(stream, true, 0, &stream->sending.aead, err);

    if (code != NC_ERR_OK)
        return code;
    return open_key(stream, false, 0, &stream->receiving.aead, err);
}

/* A key serves for so many frames and bytes, far below what AES-GCM bears; then comes the next. */
static int rekey(struct nc_stream *stream, struct nc_err *err)
{
    struct nc_aead *aead;
    int code;

    if (stream->link->options.encrypt == 0 || (stream->sending.sequence < NC_FRAME_EPOCH_FRAMES &&
                                               stream->sending.bytes < NC_FRAME_EPOCH_BYTES))
        return NC_ERR_OK;
    code = open_key(stream, true, stream->sending.epoch + 1, &aead, err);
    if (code != NC_ERR_OK)
        return code;
    nc_aead_close(stream->sending.aead);
    stream->sending = (struct nc_direction){.aead = aead, .epoch = stream->sending.epoch + 1};
    (void)pthread_mutex_lock(&stream->link->lock);
    stream->link->info.rekeys++;
    (void)pthread_mutex_unlock(&stream->link->lock);
    return NC_ERR_OK;
}

/* --- Life
 * -------------------------------------------------------------------------------------------- */

void nc_stream_break(struct nc_stream *stream, int code, int os_errno)
{
    if (stream->broken)
        return;
    stream->broken = true;
    stream->lost_code = code;
    stream->lost_errno = os_errno;
    nc_thread_ready(stream);
}

void nc_stream_free(struct nc_stream *stream)
{
    if (stream->channel != NULL)
        nc_rdma_channel_close(stream->channel);
    else if (stream->fd >= 0)
        (void)close(stream->fd);
    nc_aead_close(stream->sending.aead);
    nc_aead_close(stream->receiving.aead);
    free(stream);
}

static void opened(struct nc_stream *stream)
{
    struct nc_amst_link *link = stream->link;

    stream->deadline_ns = 0;
    (void)pthread_mutex_lock(&link->lock);
    stream->state = NC_AMST_STREAM_OPEN;
    nc_notice_post(link->engine, &stream->notice, NC_AMST_STREAM_UP, NC_ERR_OK, 0);
    nc_pipe_acknowledge_again(link);
    (void)pthread_mutex_unlock(&link->lock);
}

void nc_stream_start(struct nc_stream *stream)
{
    bool initiator = stream->link->options.initiator != 0;

    if (nc_stream_greet(stream, initiator ? NC_FRAME_HELLO : NC_FRAME_HELLO_ACK,
                        stream->out.small) != NC_ERR_OK) {
        nc_stream_break(stream, NC_ERR_SYSTEM, EIO);
        return;
    }
    stream->out.part[0] =
        (struct iovec){.iov_base = stream->out.small, .iov_len = NC_FRAME_HELLO_BYTES};
    stream->out.parts = 1;
    stream->out.active = true;
    nc_thread_timer(stream->thread, stream->deadline_ns);
    if (!initiator)
        opened(stream);
}

int nc_stream_greet(struct nc_stream *stream, uint8_t type, uint8_t *ret_frame)
{
    struct nc_frame frame = {.type = type, .stream = stream->id, .wire_size = GREETING_PAYLOAD};
    uint8_t *payload = ret_frame + NC_FRAME_HEADER_BYTES;

    memcpy(payload, stream->link->options.id, 16);
    if (getrandom(payload + 16, 16, 0) != 16)
        return NC_ERR_SYSTEM;
    nc_frame_write(&frame, stream->link->seed, ret_frame);
    stream->sending.sequence = 1;
    return nc_aead_seal(stream->sending.aead, 0, ret_frame,
                        NC_FRAME_HEADER_BYTES + GREETING_PAYLOAD, NULL, 0, NULL,
                        payload + GREETING_PAYLOAD, NULL);
}

int nc_stream_check_greeting(struct nc_stream *stream, const uint8_t *bytes, uint8_t type,
                             struct nc_err *err)
{
    const uint8_t *payload = bytes + NC_FRAME_HEADER_BYTES;
    struct nc_frame frame;
    int code =
        nc_frame_read(bytes, stream->link->seed, stream->link->options.max_chunk, &frame, err);

    if (code != NC_ERR_OK)
        return code;
    if (frame.type != type || frame.stream != stream->id || frame.epoch != 0 ||
        frame.sequence != 0 || memcmp(payload, stream->link->options.id, 16) != 0)
        return nc_err_set(err, NC_ERR_DENIED, 0, "the greeting is not of this stream");
    code =
        nc_aead_unseal(stream->receiving.aead, 0, bytes, NC_FRAME_HEADER_BYTES + GREETING_PAYLOAD,
                       NULL, 0, NULL, payload + GREETING_PAYLOAD, NULL);
    if (code != NC_ERR_OK)
        return nc_err_set(err, NC_ERR_DENIED, 0, "the greeting does not prove the keys");
    stream->receiving.sequence = 1;
    return NC_ERR_OK;
}

/* --- Frames out
 * ------------------------------------------------------------------------------------- */

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

/* Writes the header for `size` bytes of payload behind it and seals them; the frame is then one
 * piece from `area` on. */
static int seal(struct nc_stream *stream, struct nc_frame *frame, uint8_t *area, size_t size)
{
    struct nc_direction *sending = &stream->sending;
    size_t total = NC_FRAME_HEADER_BYTES + size;
    uint8_t *payload = area + NC_FRAME_HEADER_BYTES;

    frame->stream = stream->id;
    frame->epoch = sending->epoch;
    frame->sequence = sending->sequence;
    frame->wire_size = (uint32_t)size;
    nc_frame_write(frame, stream->link->seed, area);
    if (stream->link->options.encrypt != 0) {
        if (nc_aead_seal(sending->aead, frame->sequence, area, NC_FRAME_HEADER_BYTES, payload, size,
                         payload, payload + size, NULL) != NC_ERR_OK) {
            nc_stream_break(stream, NC_ERR_SYSTEM, EIO);
            return NC_ERR_SYSTEM;
        }
        total += NC_CRYPTO_TAG_BYTES;
    }
    sending->sequence++;
    sending->bytes += total;
    stream->out.part[0] = (struct iovec){.iov_base = area, .iov_len = total};
    stream->out.parts = 1;
    stream->out.active = true;
    return NC_ERR_OK;
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
    bool in_place = link->options.encrypt == 0 && object->stable && stream->channel == NULL &&
                    object->source != NULL;
    uint8_t *area = NULL;
    uint32_t checksum;
    bool good;

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
    if (in_place) {
        checksum = nc_crc32(0, object->source + flight->offset, size);
    } else {
        area = nc_stream_area(stream);
        if (area == NULL) {
            (void)pthread_mutex_lock(&link->lock);
            flight->building = false;
            nc_object_release(object);
            (void)pthread_mutex_unlock(&link->lock);
            nc_stream_break(stream, NC_ERR_MEMORY, ENOMEM);
            return false;
        }
        if (nc_object_read(object, flight->offset, size, area + NC_FRAME_HEADER_BYTES, &err) !=
            NC_ERR_OK) {
            nc_stream_area_back(stream);
            (void)pthread_mutex_lock(&link->lock);
            nc_object_finish(object, err.code, err.os_errno);
            drop_flight(stream, flight);
            (void)pthread_mutex_unlock(&link->lock);
            return true;
        }
        checksum = nc_crc32(0, area + NC_FRAME_HEADER_BYTES, size);
    }
    (void)pthread_mutex_lock(&link->lock);
    object->leaves[flight->first] = checksum;
    good = built(stream, flight, in_place);
    (void)pthread_mutex_unlock(&link->lock);
    if (!good) {
        nc_stream_area_back(stream);
        return true;
    }
    if (in_place) {
        send_in_place(stream, &frame, object, flight->offset, size, checksum);
        return true;
    }
    put32(area + NC_FRAME_HEADER_BYTES + size, checksum);
    return seal(stream, &frame, area, size + NC_FRAME_CHECKSUM_BYTES) == NC_ERR_OK;
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
    if (rekey(stream, &err) != NC_ERR_OK) {
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

/* --- Frames in
 * -------------------------------------------------------------------------------------- */

void nc_stream_receive(struct nc_stream *stream)
{
    bool full;

    /* A peer that sends but does not read must not make us keep ever more answers. */
    (void)pthread_mutex_lock(&stream->link->lock);
    full = stream->ack_count > NC_ACKS_HELD - NC_ACKS_FRAME;
    (void)pthread_mutex_unlock(&stream->link->lock);
    if (full) {
        stream->readable = !stream->blocked;
        return;
    }
    if (stream->channel != NULL)
        nc_amst_rdma_receive(stream);
    else
        nc_tcp_receive(stream);
}

static int bad(struct nc_stream *stream, int code)
{
    (void)pthread_mutex_lock(&stream->link->lock);
    stream->link->info.bad_frames++;
    (void)pthread_mutex_unlock(&stream->link->lock);
    nc_stream_break(stream, code, 0);
    return code;
}

/* Header in stream->in.header: is it the frame that has to come now? Sets in.frame and in.want. */
int nc_stream_expect(struct nc_stream *stream)
{
    struct nc_incoming *in = &stream->in;
    const struct nc_direction *receiving = &stream->receiving;
    bool greeting = stream->state == NC_AMST_STREAM_GREETING;
    struct nc_err err;

    if (nc_frame_read(in->header, stream->link->seed, stream->link->options.max_chunk, &in->frame,
                      &err) != NC_ERR_OK)
        return bad(stream, NC_ERR_PROTOCOL);
    in->want = in->frame.wire_size;
    if (greeting || stream->link->options.encrypt != 0)
        in->want += NC_CRYPTO_TAG_BYTES;
    if (greeting != (in->frame.type == NC_FRAME_HELLO_ACK) || in->frame.type == NC_FRAME_HELLO ||
        in->frame.stream != stream->id)
        return bad(stream, NC_ERR_PROTOCOL);
    if (in->frame.epoch == receiving->epoch && in->frame.sequence == receiving->sequence)
        return NC_ERR_OK;
    if (stream->link->options.encrypt != 0 && in->frame.epoch == receiving->epoch + 1 &&
        in->frame.sequence == 0 && receiving->sequence > 0)
        return NC_ERR_OK;
    return bad(stream, NC_ERR_PROTOCOL);
}

/* Proves and opens the payload in place. */
static int unseal(struct nc_stream *stream, const uint8_t *header, uint8_t *payload)
{
    const struct nc_frame *frame = &stream->in.frame;
    struct nc_direction *receiving = &stream->receiving;
    struct nc_aead *next = NULL;
    struct nc_aead *aead = receiving->aead;
    struct nc_err err;

    if (stream->link->options.encrypt == 0) {
        receiving->sequence++;
        return NC_ERR_OK;
    }
    if (frame->epoch != receiving->epoch) {
        if (open_key(stream, false, frame->epoch, &next, &err) != NC_ERR_OK)
            return bad(stream, NC_ERR_SYSTEM);
        aead = next;
    }
    if (nc_aead_unseal(aead, frame->sequence, header, NC_FRAME_HEADER_BYTES, payload,
                       frame->wire_size, payload, payload + frame->wire_size, NULL) != NC_ERR_OK) {
        nc_aead_close(next);
        return bad(stream, NC_ERR_INTEGRITY);
    }
    if (next != NULL) {
        nc_aead_close(receiving->aead);
        *receiving = (struct nc_direction){.aead = next, .epoch = frame->epoch};
    }
    receiving->sequence++;
    return NC_ERR_OK;
}

static int take_acks(struct nc_stream *stream, const uint8_t *payload)
{
    size_t count = stream->in.frame.wire_size / NC_FRAME_ACK_BYTES;
    uint64_t now = nc_now_ns();
    int code = NC_ERR_OK;
    struct nc_err err;

    (void)pthread_mutex_lock(&stream->link->lock);
    for (size_t i = 0; i < count && code == NC_ERR_OK; i++) {
        struct nc_frame_ack ack;

        code = nc_frame_ack_read(payload + i * NC_FRAME_ACK_BYTES, &ack, &err);
        if (code == NC_ERR_OK)
            nc_link_acknowledge(stream, &ack, now);
    }
    (void)pthread_mutex_unlock(&stream->link->lock);
    return code == NC_ERR_OK ? code : bad(stream, NC_ERR_PROTOCOL);
}

int nc_stream_take(struct nc_stream *stream, const uint8_t *header, uint8_t *payload)
{
    const struct nc_frame *frame = &stream->in.frame;
    uint8_t greeting[NC_FRAME_HELLO_BYTES];
    uint32_t checksum;
    int code;

    if (frame->type == NC_FRAME_HELLO_ACK) {
        memcpy(greeting, header, NC_FRAME_HEADER_BYTES);
        memcpy(greeting + NC_FRAME_HEADER_BYTES, payload, GREETING_PAYLOAD + NC_CRYPTO_TAG_BYTES);
        if (nc_stream_check_greeting(stream, greeting, NC_FRAME_HELLO_ACK, NULL) != NC_ERR_OK)
            return bad(stream, NC_ERR_DENIED);
        opened(stream);
        return NC_ERR_OK;
    }
    code = unseal(stream, header, payload);
    if (code != NC_ERR_OK)
        return code;
    switch (frame->type) {
    case NC_FRAME_DATA:
    case NC_FRAME_SEGMENT:
        if (frame->codec != 0 || frame->wire_size != frame->raw_size + NC_FRAME_CHECKSUM_BYTES)
            return bad(stream, NC_ERR_PROTOCOL);
        checksum = nc_crc32(0, payload, frame->raw_size);
        if (checksum != get32(payload + frame->raw_size))
            return bad(stream, NC_ERR_INTEGRITY);
        if (frame->type == NC_FRAME_DATA)
            nc_receive_chunk(stream, frame, payload, checksum);
        else if (nc_receive_segment(stream, frame, payload) != NC_ERR_OK)
            return bad(stream, NC_ERR_PROTOCOL);
        return NC_ERR_OK;
    case NC_FRAME_ZERO:
        nc_receive_zero(stream, frame, get64(payload));
        return NC_ERR_OK;
    case NC_FRAME_END:
        if (nc_receive_segment(stream, frame, NULL) != NC_ERR_OK)
            return bad(stream, NC_ERR_PROTOCOL);
        return NC_ERR_OK;
    case NC_FRAME_ACK:
        return take_acks(stream, payload);
    case NC_FRAME_BYE:
        stream->heard_bye = true;
        atomic_store(&stream->retiring, true);
        return NC_ERR_OK;
    default:
        return bad(stream, NC_ERR_PROTOCOL);
    }
}
