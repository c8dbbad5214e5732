/* A stream's life in its thread: greeting, the frames it makes, the frames it takes. What carries
 * the bytes is a mover's business. */
#define _GNU_SOURCE

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "nc_amst_internal.h"
#include "nc_crc.h"
#include "nc_rdma.h"

#define GREETING_PAYLOAD 32

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

/* --- Keys --- */

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
int nc_stream_rekey(struct nc_stream *stream, struct nc_err *err)
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

/* --- Life --- */

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
    nc_pace_share(link);
    nc_notice_post(link->engine, &stream->notice, NC_AMST_STREAM_UP, NC_ERR_OK, 0);
    nc_pipe_acknowledge_again(link);
    (void)pthread_mutex_unlock(&link->lock);
}

/* Over TCP the greeting was read before there was a stream; over RDMA it is the first message. */
static bool awaits_hello(const struct nc_stream *stream)
{
    return stream->channel != NULL && stream->link->options.initiator == 0 &&
           stream->receiving.sequence == 0;
}

void nc_stream_start(struct nc_stream *stream)
{
    bool initiator = stream->link->options.initiator != 0;

    nc_thread_timer(stream->thread, stream->deadline_ns);
    if (awaits_hello(stream))
        return;
    if (nc_stream_greet(stream, initiator ? NC_FRAME_HELLO : NC_FRAME_HELLO_ACK,
                        stream->out.small) != NC_ERR_OK) {
        nc_stream_break(stream, NC_ERR_SYSTEM, EIO);
        return;
    }
    stream->out.part[0] =
        (struct iovec){.iov_base = stream->out.small, .iov_len = NC_FRAME_HELLO_BYTES};
    stream->out.parts = 1;
    stream->out.active = true;
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

/* --- Frames in --- */

bool nc_stream_owes(struct nc_stream *stream)
{
    bool owes;

    (void)pthread_mutex_lock(&stream->link->lock);
    owes = stream->ack_count > NC_ACKS_HELD - NC_ACKS_FRAME;
    (void)pthread_mutex_unlock(&stream->link->lock);
    return owes;
}

void nc_stream_receive(struct nc_stream *stream)
{
    if (nc_stream_owes(stream)) {
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

static int bad_because(struct nc_stream *stream, const struct nc_err *err)
{
    if (!stream->broken)
        (void)snprintf(stream->lost_why, sizeof stream->lost_why, "%s", err->reason);
    return bad(stream, err->code);
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
    in->want =
        in->frame.wire_size + nc_frame_trailer_bytes(&in->frame, stream->link->options.encrypt);
    if (greeting != (in->frame.type == NC_FRAME_HELLO_ACK || in->frame.type == NC_FRAME_HELLO) ||
        (in->frame.type == NC_FRAME_HELLO) != awaits_hello(stream) ||
        in->frame.stream != stream->id)
        return bad(stream, NC_ERR_PROTOCOL);
    /* The limits of a key hold for both ends: a sender that goes on with one is refused. */
    if (in->frame.epoch == receiving->epoch && in->frame.sequence == receiving->sequence &&
        (stream->link->options.encrypt == 0 ||
         (receiving->sequence < NC_FRAME_EPOCH_FRAMES && receiving->bytes < NC_FRAME_EPOCH_BYTES)))
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
        if (nc_frame_trailer_bytes(frame, 0) != 0 &&
            get32(payload + frame->wire_size) !=
                nc_crc32(stream->link->seed, payload, frame->wire_size))
            return bad(stream, NC_ERR_INTEGRITY);
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
    receiving->bytes += NC_FRAME_HEADER_BYTES + frame->wire_size + NC_CRYPTO_TAG_BYTES;
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
    struct nc_decoded decoded;
    struct nc_err err;
    int code;

    if (frame->type == NC_FRAME_HELLO || frame->type == NC_FRAME_HELLO_ACK) {
        memcpy(greeting, header, NC_FRAME_HEADER_BYTES);
        memcpy(greeting + NC_FRAME_HEADER_BYTES, payload, GREETING_PAYLOAD + NC_CRYPTO_TAG_BYTES);
        if (nc_stream_check_greeting(stream, greeting, frame->type, NULL) != NC_ERR_OK)
            return bad(stream, NC_ERR_DENIED);
        if (frame->type == NC_FRAME_HELLO)
            nc_stream_start(stream);
        else
            opened(stream);
        return NC_ERR_OK;
    }
    code = unseal(stream, header, payload);
    if (code != NC_ERR_OK)
        return code;
    switch (frame->type) {
    case NC_FRAME_DATA:
        if (nc_decode(stream, frame, payload, &decoded, &err) != NC_ERR_OK ||
            nc_receive_chunk(stream, frame, &decoded, &err) != NC_ERR_OK)
            return bad_because(stream, &err);
        return NC_ERR_OK;
    case NC_FRAME_SEGMENT:
        if (nc_crc32(0, payload, frame->raw_size) != get32(payload + frame->raw_size))
            return bad(stream, NC_ERR_INTEGRITY);
        if (nc_receive_segment(stream, frame, payload) != NC_ERR_OK)
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
