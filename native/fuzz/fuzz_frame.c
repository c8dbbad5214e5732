/* libFuzzer target for the parsers of nc_frame.h: what they accept obeys the protocol's limits and
 * is written back to the same bytes; what they refuse leaves the result untouched and says why.
 *
 * The input is the seed of the checksum (4), the agreed chunk (4), a header (64), an
 * acknowledgement (32); what is missing is zero. Each header is tried as it is and with its
 * checksum made right, or else nothing behind the checksum would ever be reached. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nc_crc.h"
#include "nc_err.h"
#include "nc_frame.h"

#define CHECK_PLACE 60

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ALWAYS(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint32_t get32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* The next `size` bytes of the input in a block of exactly that size, for the sanitizer. */
static uint8_t *take(const uint8_t **data, size_t *left, size_t size)
{
    uint8_t *block = calloc(1, size);
    size_t part = *left < size ? *left : size;

    if (block == NULL)
        abort();
    if (part > 0)
        memcpy(block, *data, part);
    *data += part;
    *left -= part;
    return block;
}

static void refusal_is_complete(const struct nc_err *err, const void *result, size_t size)
{
    const uint8_t *bytes = result;

    ALWAYS(err->code == NC_ERR_PROTOCOL);
    ALWAYS(err->reason[0] != '\0');
    ALWAYS(memchr(err->reason, '\0', sizeof err->reason) != NULL);
    for (size_t i = 0; i < size; i++)
        ALWAYS(bytes[i] == 0xee);
}

static void frame_obeys(const struct nc_frame *frame, uint32_t max_chunk)
{
    int content = frame->type == NC_FRAME_DATA || frame->type == NC_FRAME_SEGMENT;
    int named = content || frame->type == NC_FRAME_ZERO || frame->type == NC_FRAME_END;
    uint32_t least = frame->flags != 0 ? NC_FRAME_DELTA_BYTES : 0;

    ALWAYS(frame->type >= NC_FRAME_HELLO && frame->type < NC_FRAME_MAX);
    ALWAYS(frame->type == NC_FRAME_DATA || (frame->flags == 0 && frame->codec == 0));
    ALWAYS((frame->flags & ~NC_FRAME_DELTA) == 0 && frame->codec < NC_FRAME_CODECS);
    ALWAYS((frame->flags != 0) == (frame->base != 0));
    ALWAYS(named == (frame->object != 0));
    ALWAYS(frame->offset <= INT64_MAX);
    if (content) {
        ALWAYS(frame->raw_size > 0 && frame->raw_size <= max_chunk);
        ALWAYS(frame->raw_size <= NC_FRAME_MAX_CHUNK);
        /* What is coded is never larger than what it is of, and never nothing. */
        ALWAYS(frame->wire_size <= frame->raw_size + NC_FRAME_CHECKSUM_BYTES);
        if (frame->codec == 0 && frame->flags == 0)
            ALWAYS(frame->wire_size == frame->raw_size + NC_FRAME_CHECKSUM_BYTES);
        else
            ALWAYS(frame->wire_size > NC_FRAME_CHECKSUM_BYTES + least);
        ALWAYS(frame->offset + frame->raw_size <= INT64_MAX);
    } else {
        ALWAYS(frame->raw_size == 0);
        ALWAYS(frame->wire_size <= NC_FRAME_MAX_CONTROL);
        ALWAYS(named || (frame->generation == 0 && frame->offset == 0));
    }
}

static void header_is_judged(const uint8_t *header, uint32_t seed, uint32_t max_chunk)
{
    int sealed = get32(header + CHECK_PLACE) == nc_crc32_tables(seed, header, CHECK_PLACE);
    uint8_t again[NC_FRAME_HEADER_BYTES];
    struct nc_frame frame;
    struct nc_err err = {0};
    int code;

    memset(&frame, 0xee, sizeof frame);
    code = nc_frame_read(header, seed, max_chunk, &frame, &err);
    ALWAYS(nc_frame_read(header, seed, max_chunk, &frame, NULL) == code);
    if (code != NC_ERR_OK) {
        refusal_is_complete(&err, &frame, sizeof frame);
        return;
    }
    ALWAYS(sealed);
    frame_obeys(&frame, max_chunk);
    nc_frame_write(&frame, seed, again);
    ALWAYS(memcmp(again, header, sizeof again) == 0);
    /* Where more is agreed, the same frame is still one. */
    ALWAYS(nc_frame_read(header, seed, UINT32_MAX, &frame, &err) == NC_ERR_OK);
}

static void acknowledgement_is_judged(const uint8_t *bytes)
{
    uint8_t again[NC_FRAME_ACK_BYTES];
    struct nc_frame_ack ack;
    struct nc_err err = {0};

    memset(&ack, 0xee, sizeof ack);
    if (nc_frame_ack_read(bytes, &ack, &err) != NC_ERR_OK) {
        refusal_is_complete(&err, &ack, sizeof ack);
        return;
    }
    ALWAYS(ack.kind >= NC_ACK_CHUNK && ack.kind < NC_ACK_MAX);
    ALWAYS(ack.object != 0 && ack.offset <= INT64_MAX);
    switch (ack.kind) {
    case NC_ACK_CHUNK:
    case NC_ACK_SEGMENT:
    case NC_ACK_BASE:
        ALWAYS(ack.value <= NC_FRAME_MAX_CHUNK);
        __attribute__((fallthrough));
    case NC_ACK_ZERO:
        ALWAYS(ack.value > 0 || ack.kind == NC_ACK_SEGMENT);
        ALWAYS(ack.value <= INT64_MAX);
        ALWAYS(ack.offset + ack.value <= INT64_MAX);
        break;
    case NC_ACK_READ:
        ALWAYS(ack.value == 0);
        break;
    default:
        ALWAYS(nc_frame_error_code(ack.value) != NC_ERR_OK);
        ALWAYS(ack.offset <= NC_ACK_MAX_ERRNO);
    }
    nc_frame_ack_write(&ack, again);
    ALWAYS(memcmp(again, bytes, sizeof again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t left = size;
    uint8_t *numbers = take(&data, &left, 8);
    uint8_t *header = take(&data, &left, NC_FRAME_HEADER_BYTES);
    uint8_t *ack = take(&data, &left, NC_FRAME_ACK_BYTES);
    uint32_t seed = get32(numbers);
    uint32_t max_chunk = get32(numbers + 4);
    uint32_t check;

    header_is_judged(header, seed, max_chunk);
    check = nc_crc32(seed, header, CHECK_PLACE);
    for (size_t i = 0; i < 4; i++)
        header[CHECK_PLACE + i] = (uint8_t)(check >> (24 - 8 * i));
    header_is_judged(header, seed, max_chunk);
    acknowledgement_is_judged(ack);
    free(numbers);
    free(header);
    free(ack);
    return 0;
}
