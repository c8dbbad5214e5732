/* What a chunk was before it was encoded. Every size is known before anything is decoded: what
 * comes out is at most the content that was agreed on, in areas that are there already. */
#include <endian.h>
#include <string.h>
#include <unistd.h>

#include "nc_amst_internal.h"
#include "nc_codec.h"
#include "nc_crc.h"
#include "nc_delta.h"

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static int undo_codec(struct nc_thread *thread, const struct nc_frame *frame, const uint8_t *coded,
                      size_t coded_size, size_t size, enum nc_work_area where,
                      struct nc_decoded *ret_decoded, struct nc_err *err)
{
    uint8_t *area = nc_thread_work(thread, where);
    struct nc_codec *codec = nc_thread_codec(thread);

    if (area == NULL || codec == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, 0, "no memory to decode in");
    ret_decoded->data = area;
    ret_decoded->size = size;
    return nc_codec_decode(codec, frame->codec, coded, coded_size, area, size, err);
}

int nc_decode(struct nc_stream *stream, const struct nc_frame *frame, const uint8_t *payload,
              struct nc_decoded *ret_decoded, struct nc_err *err)
{
    unsigned agreed = stream->link->options.codecs;
    size_t size = frame->wire_size - NC_FRAME_CHECKSUM_BYTES;
    uint64_t cpu = nc_cpu_ns();
    int code = NC_ERR_OK;

    if ((frame->codec != NC_CODEC_RAW && (agreed >> frame->codec & 1) == 0) ||
        (frame->flags != 0 && (agreed & NC_AMST_DELTA) == 0))
        return nc_err_set(err, NC_ERR_PROTOCOL, 0,
                          "a chunk is encoded in a way that was not agreed on (codec %u%s)",
                          frame->codec, frame->flags != 0 ? ", delta" : "");
    *ret_decoded =
        (struct nc_decoded){.data = payload, .size = size, .checksum = get32(payload + size)};
    if ((frame->flags & NC_FRAME_DELTA) != 0) {
        uint32_t delta_size = get32(payload + 4);

        ret_decoded->base_checksum = get32(payload);
        ret_decoded->data += NC_FRAME_DELTA_BYTES;
        ret_decoded->size -= NC_FRAME_DELTA_BYTES;
        if (delta_size == 0 || delta_size > frame->raw_size ||
            (frame->codec == NC_CODEC_RAW && delta_size != ret_decoded->size))
            return nc_err_set(err, NC_ERR_PROTOCOL, 0,
                              "a difference declares %u bytes, in a chunk of %u", delta_size,
                              frame->raw_size);
        if (frame->codec != NC_CODEC_RAW)
            code = undo_codec(stream->thread, frame, ret_decoded->data, ret_decoded->size,
                              delta_size, NC_WORK_DELTA, ret_decoded, err);
        ret_decoded->cpu_ns = nc_cpu_ns() - cpu;
        return code;
    }
    if (frame->codec != NC_CODEC_RAW)
        code = undo_codec(stream->thread, frame, payload, size, frame->raw_size, NC_WORK_CONTENT,
                          ret_decoded, err);
    if (code == NC_ERR_OK &&
        nc_crc32(0, ret_decoded->data, frame->raw_size) != ret_decoded->checksum)
        code = nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk's content has another checksum");
    ret_decoded->cpu_ns = nc_cpu_ns() - cpu;
    return code;
}

/* The object's base at the frame's place, or NULL where it is none. */
static const uint8_t *base_of(struct nc_thread *thread, const struct nc_amst_object *object,
                              const struct nc_frame *frame)
{
    uint8_t *area;
    size_t have = 0;

    if (object->base_id != frame->base)
        return NULL;
    if (object->base != NULL)
        return object->base + frame->offset;
    area = nc_thread_work(thread, NC_WORK_BASE);
    while (area != NULL && have < frame->raw_size) {
        ssize_t got = pread(object->base_fd, area + have, frame->raw_size - have,
                            (off_t)(frame->offset + have));

        if (got < 0)
            return NULL;
        if (got == 0) {
            /* A target that is being written is as long as what was written so far: it reads as
             * zero behind that. */
            memset(area + have, 0, frame->raw_size - have);
            break;
        }
        have += (size_t)got;
    }
    return area;
}

int nc_decode_delta(struct nc_stream *stream, const struct nc_amst_object *object,
                    const struct nc_frame *frame, struct nc_decoded *decoded, struct nc_err *err)
{
    uint64_t cpu = nc_cpu_ns();
    const uint8_t *base = base_of(stream->thread, object, frame);
    uint8_t *area = nc_thread_work(stream->thread, NC_WORK_CONTENT);
    int code;

    if (area == NULL)
        return nc_err_set(err, NC_ERR_MEMORY, 0, "no memory to decode in");
    if (base == NULL || nc_crc32(0, base, frame->raw_size) != decoded->base_checksum)
        return nc_err_set(err, NC_ERR_NOT_FOUND, 0, "a difference to a base that is not here");
    code = nc_delta_decode(decoded->data, decoded->size, base, area, frame->raw_size, err);
    if (code == NC_ERR_OK && nc_crc32(0, area, frame->raw_size) != decoded->checksum)
        code = nc_err_set(err, NC_ERR_INTEGRITY, 0, "a chunk's content has another checksum");
    decoded->data = area;
    decoded->size = frame->raw_size;
    decoded->cpu_ns += nc_cpu_ns() - cpu;
    return code;
}
