/* Coded chunks as a peer may send them that holds the keys and means no good: each is refused, and
 * says why, and nothing reaches the target. */
#include <endian.h>

#include "amst_pair.h"
#include "nc_codec.h"
#include "nc_crc.h"
#include "nc_delta.h"

#define SEALED (NC_FRAME_HEADER_BYTES + CHUNK + 64)

struct forger {
    struct end end;
    int fd;
    uint64_t sequence;
    uint32_t seed;
};

static uint8_t content[CHUNK];
static uint8_t base[CHUNK];
static uint8_t target[2 * CHUNK];
static uint8_t coded[CHUNK + 256];

static void put32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

/* An engine that takes one stream from us, who know its keys and encrypt nothing. */
static void open_forger(struct forger *forger, unsigned codecs)
{
    struct nc_amst_options options = {.threads = 1};
    struct nc_amst_link_options link = {.tag = 7,
                                        .max_chunk = CHUNK,
                                        .send_window = 1u << 20,
                                        .receive_window = 1u << 20,
                                        .codecs = codecs};
    struct nc_frame hello = {
        .type = NC_FRAME_HELLO, .stream = 1, .wire_size = NC_FRAME_HELLO_PAYLOAD_BYTES};
    uint8_t bytes[NC_FRAME_HELLO_BYTES] = {0};
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    struct nc_frame_key key;
    struct nc_aead *aead;
    struct nc_err err;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int far;

    memset(forger, 0, sizeof *forger);
    memset(link.secret, 6, sizeof link.secret);
    CHECK(nc_amst_open(&options, &forger->end.engine, &err) == NC_ERR_OK);
    CHECK(nc_amst_link_open(forger->end.engine, &link, &forger->end.link, &err) == NC_ERR_OK);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    forger->fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(forger->fd, (struct sockaddr *)&address, sizeof address) == 0);
    far = accept(listener, NULL, NULL);
    (void)close(listener);
    CHECK(nc_frame_seed(link.secret, link.context, &forger->seed, &err) == NC_ERR_OK);
    CHECK(nc_frame_key(link.secret, link.context, 0, 1, 0, &key, &err) == NC_ERR_OK);
    CHECK(nc_aead_open(key.key, key.iv, 1, &aead, &err) == NC_ERR_OK);
    nc_frame_write(&hello, forger->seed, bytes);
    CHECK(nc_aead_seal(aead, 0, bytes, NC_FRAME_HEADER_BYTES + NC_FRAME_HELLO_PAYLOAD_BYTES, NULL,
                       0, NULL, bytes + NC_FRAME_HEADER_BYTES + NC_FRAME_HELLO_PAYLOAD_BYTES,
                       &err) == NC_ERR_OK);
    nc_aead_close(aead);
    CHECK(nc_amst_link_accepted(forger->end.link, far, bytes, sizeof bytes, &err) == NC_ERR_OK);
    CHECK(await(&forger->end, NC_AMST_STREAM_UP, 1));
    forger->sequence = 1;
}

static void close_forger(struct forger *forger)
{
    (void)close(forger->fd);
    nc_amst_close(forger->end.engine);
}

static void send_chunk(struct forger *forger, uint8_t codec, uint8_t flags, uint32_t base_id,
                       const uint8_t *payload, size_t size, uint32_t checksum)
{
    static uint8_t bytes[SEALED];
    struct nc_frame frame = {.type = NC_FRAME_DATA,
                             .flags = flags,
                             .codec = codec,
                             .stream = 1,
                             .sequence = forger->sequence++,
                             .object = 1,
                             .raw_size = CHUNK,
                             .wire_size = (uint32_t)size + NC_FRAME_CHECKSUM_BYTES,
                             .base = base_id};
    size_t total = NC_FRAME_HEADER_BYTES + frame.wire_size;

    nc_frame_write(&frame, forger->seed, bytes);
    memcpy(bytes + NC_FRAME_HEADER_BYTES, payload, size);
    put32(bytes + NC_FRAME_HEADER_BYTES + size, checksum);
    if (nc_frame_trailer_bytes(&frame, 0) != 0) {
        put32(bytes + total,
              nc_crc32(forger->seed, bytes + NC_FRAME_HEADER_BYTES, frame.wire_size));
        total += NC_FRAME_CHECKSUM_BYTES;
    }
    CHECK(send(forger->fd, bytes, total, MSG_NOSIGNAL) == (ssize_t)total);
}

/* Sends the chunk to a fresh engine; what its stream died of is *ret_why, empty where it lives. */
static void forge(unsigned codecs, uint8_t codec, uint8_t flags, uint32_t base_id,
                  const uint8_t *payload, size_t size, const char *expected)
{
    struct forger forger;
    struct nc_amst_target described = {.number = 1,
                                       .fd = -1,
                                       .memory = target,
                                       .size = CHUNK,
                                       .chunk = CHUNK,
                                       .base_id = 3,
                                       .base_fd = -1,
                                       .base_memory = base};
    struct nc_amst_object *object;
    struct nc_err err;

    memset(target, 0xa5, sizeof target);
    open_forger(&forger, codecs);
    CHECK(nc_amst_receive(forger.end.link, &described, &object, &err) == NC_ERR_OK);
    send_chunk(&forger, codec, flags, base_id, payload, size, nc_crc32(0, content, CHUNK));
    if (expected != NULL) {
        CHECK(await(&forger.end, NC_AMST_STREAM_LOST, 1));
        if (strstr(forger.end.why, expected) == NULL) {
            CHECK_TEXT(forger.end.why, expected);
        }
        for (size_t i = 0; i < sizeof target; i++) {
            if (target[i] != 0xa5) {
                CHECK(target[i] == 0xa5);
                break;
            }
        }
    } else {
        CHECK(await(&forger.end, NC_AMST_OBJECT_DONE, 1));
        CHECK(memcmp(target, content, CHUNK) == 0);
        CHECK(target[CHUNK] == 0xa5);
    }
    close_forger(&forger);
}

/* A frame of zstd that declares `declared` bytes and is of one repeated byte: RFC 8878. */
static size_t make_bomb(uint64_t declared, uint32_t block)
{
    static const uint8_t head[] = {0x28, 0xb5, 0x2f, 0xfd, 0xe0};
    uint32_t header = block << 3 | 1u << 1 | 1; /* RLE, the last */
    uint64_t little = htole64(declared);

    memcpy(coded, head, sizeof head);
    memcpy(coded + 5, &little, 8);
    coded[13] = (uint8_t)header;
    coded[14] = (uint8_t)(header >> 8);
    coded[15] = (uint8_t)(header >> 16);
    coded[16] = 'x';
    return 17;
}

static void zstd_is_not_believed(void)
{
    unsigned both = nc_codec_available();
    struct nc_codec *codec;
    struct nc_err err;
    size_t size;

    CHECK(nc_codec_open(&codec, &err) == NC_ERR_OK);
    CHECK(nc_codec_encode(codec, NC_CODEC_ZSTD, 3, content, CHUNK, coded, sizeof coded, &size,
                          &err) == NC_ERR_OK &&
          size > 0);
    forge(both, NC_CODEC_ZSTD, 0, 0, coded, size, NULL);
    forge(1, NC_CODEC_ZSTD, 0, 0, coded, size, "not agreed on");
    forge(both, NC_CODEC_LZ4, 0, 0, coded, size, "lz4");
    forge(both, NC_CODEC_ZSTD, 0, 0, coded, size - 1, "ends early");
    coded[size] = 0;
    forge(both, NC_CODEC_ZSTD, 0, 0, coded, size + 1, "follow a chunk");
    /* It declares what it is not. */
    CHECK(nc_codec_encode(codec, NC_CODEC_ZSTD, 3, content, CHUNK - 1, coded, sizeof coded, &size,
                          &err) == NC_ERR_OK);
    forge(both, NC_CODEC_ZSTD, 0, 0, coded, size, "declares 65535 bytes, 65536 were agreed on");
    size = make_bomb(UINT64_C(1) << 40, 1u << 17);
    forge(both, NC_CODEC_ZSTD, 0, 0, coded, size,
          "declares 1099511627776 bytes, 65536 were agreed on");
    size = make_bomb(CHUNK, 1u << 17);
    forge(both, NC_CODEC_ZSTD, 0, 0, coded, size, "cannot be decoded");
    memset(coded, 0, 64);
    forge(both, NC_CODEC_ZSTD, 0, 0, coded, 64, "no frame of zstd");
    nc_codec_close(codec);
}

static void lz4_is_not_believed(void)
{
    unsigned both = nc_codec_available();
    struct nc_codec *codec;
    struct nc_err err;
    size_t size;

    CHECK(nc_codec_open(&codec, &err) == NC_ERR_OK);
    CHECK(nc_codec_encode(codec, NC_CODEC_LZ4, 1, content, CHUNK, coded, sizeof coded, &size,
                          &err) == NC_ERR_OK);
    forge(both, NC_CODEC_LZ4, 0, 0, coded, size, NULL);
    forge(both, NC_CODEC_LZ4, 0, 0, coded, size - 1, "lz4");
    /* A match that never ends: what lz4 has of a bomb. */
    memset(coded, 0xff, CHUNK / 4);
    coded[0] = 0x1f;
    coded[1] = 'x';
    coded[2] = 1;
    coded[3] = 0;
    forge(both, NC_CODEC_LZ4, 0, 0, coded, CHUNK / 4, "lz4");
    CHECK(nc_codec_encode(codec, NC_CODEC_LZ4, 1, content, CHUNK / 2, coded, sizeof coded, &size,
                          &err) == NC_ERR_OK);
    forge(both, NC_CODEC_LZ4, 0, 0, coded, size, "has 32768 bytes, not 65536");
    nc_codec_close(codec);
}

static void differences_are_not_believed(void)
{
    unsigned all = nc_codec_available() | NC_AMST_DELTA;
    size_t size = nc_delta_encode(content, base, CHUNK, coded + 8, CHUNK);

    CHECK(size > 0 && size < CHUNK / 2);
    put32(coded, nc_crc32(0, base, CHUNK));
    put32(coded + 4, (uint32_t)size);
    forge(all, NC_CODEC_RAW, NC_FRAME_DELTA, 3, coded, 8 + size, NULL);
    forge(nc_codec_available(), NC_CODEC_RAW, NC_FRAME_DELTA, 3, coded, 8 + size, "not agreed on");
    put32(coded + 4, (uint32_t)size + 1);
    forge(all, NC_CODEC_RAW, NC_FRAME_DELTA, 3, coded, 8 + size, "declares");
    put32(coded + 4, UINT32_MAX);
    forge(all, NC_CODEC_ZSTD, NC_FRAME_DELTA, 3, coded, 8 + size, "declares 4294967295 bytes");
    put32(coded + 4, (uint32_t)size);
    /* The first literal. */
    coded[8 + 2] ^= 1;
    forge(all, NC_CODEC_RAW, NC_FRAME_DELTA, 3, coded, 8 + size, "another checksum");
    put32(coded + 4, (uint32_t)size - 1);
    forge(all, NC_CODEC_RAW, NC_FRAME_DELTA, 3, coded, 8 + size - 1, "ends early");
}

/* The receiver says so, and the stream lives. */
static void another_base_is_answered(void)
{
    unsigned all = nc_codec_available() | NC_AMST_DELTA;
    size_t size = nc_delta_encode(content, base, CHUNK, coded + 8, CHUNK);
    struct nc_amst_target described = {.number = 1,
                                       .fd = -1,
                                       .memory = target,
                                       .size = CHUNK,
                                       .chunk = CHUNK,
                                       .base_id = 3,
                                       .base_fd = -1,
                                       .base_memory = base};
    struct forger forger;
    struct nc_amst_object *object;
    struct nc_err err;

    put32(coded + 4, (uint32_t)size);
    open_forger(&forger, all);
    CHECK(nc_amst_receive(forger.end.link, &described, &object, &err) == NC_ERR_OK);
    for (int attempt = 0; attempt < 2; attempt++) {
        uint8_t answer[NC_FRAME_HEADER_BYTES + NC_FRAME_ACK_BYTES + NC_FRAME_CHECKSUM_BYTES];
        struct nc_frame_ack ack;

        /* The number of another one, then the right number of something else. */
        put32(coded, nc_crc32(0, base, CHUNK) ^ (uint32_t)attempt);
        send_chunk(&forger, NC_CODEC_RAW, NC_FRAME_DELTA, attempt == 0 ? 4 : 3, coded, 8 + size,
                   nc_crc32(0, content, CHUNK));
        if (attempt == 0) {
            uint8_t hello[NC_FRAME_HELLO_BYTES];

            CHECK(recv(forger.fd, hello, sizeof hello, MSG_WAITALL) == (ssize_t)sizeof hello);
        }
        CHECK(recv(forger.fd, answer, sizeof answer, MSG_WAITALL) == (ssize_t)sizeof answer);
        CHECK(nc_frame_ack_read(answer + NC_FRAME_HEADER_BYTES, &ack, &err) == NC_ERR_OK);
        CHECK(ack.kind == NC_ACK_BASE && ack.offset == 0 && ack.value == CHUNK);
    }
    close_forger(&forger);
}

int main(void)
{
    for (size_t i = 0; i < CHUNK; i++) {
        base[i] = (uint8_t)(i * 7 + i / 251);
        content[i] = i % 4096 < 40 ? (uint8_t)(i * 31) : base[i];
    }
    if ((nc_codec_available() & (1u << NC_CODEC_ZSTD)) != 0)
        zstd_is_not_believed();
    if ((nc_codec_available() & (1u << NC_CODEC_LZ4)) != 0)
        lz4_is_not_believed();
    differences_are_not_believed();
    another_base_is_answered();
    return CHECK_RESULT;
}
