/* The engine over TCP. */
#define _GNU_SOURCE

#include "amst_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "nc_crc.h"

static void move_memory(int encrypt, size_t size, unsigned streams, uint32_t threads, int stable)
{
    struct engines pair;
    uint8_t *from = malloc(size + 1);
    uint8_t *to = calloc(1, size + 1);
    struct nc_amst_object *sent;
    struct nc_amst_object *received;
    struct nc_amst_object_info info;
    struct nc_err err = {0};
    struct nc_amst_target target = {
        .tag = 1, .number = 3, .fd = -1, .memory = to, .size = size, .chunk = CHUNK};
    struct nc_amst_source source = {.tag = 1,
                                    .number = 3,
                                    .fd = -1,
                                    .memory = from,
                                    .size = size,
                                    .chunk = CHUNK,
                                    .stable = stable};

    fill(from, size, (uint32_t)size);
    open_engines(&pair, encrypt, threads);
    for (unsigned i = 1; i <= streams; i++)
        (void)add_stream(&pair, i);
    CHECK(await(&pair.a, NC_AMST_STREAM_UP, streams));
    CHECK(nc_amst_receive(pair.b.link, &target, &received, &err) == NC_ERR_OK);
    CHECK(nc_amst_send(pair.a.link, &source, &sent, &err) == NC_ERR_OK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    CHECK(await(&pair.b, NC_AMST_OBJECT_DONE, 1));
    CHECK(memcmp(from, to, size) == 0);
    nc_amst_object_info(received, &info);
    CHECK(info.done_bytes == size && info.moved_bytes == size && info.code == NC_ERR_OK);
    if (size > 0) {
        uint32_t leaf = 0;
        uint32_t other = 1;

        CHECK(nc_amst_object_leaves(received, 0, 1, &leaf, &err) == NC_ERR_OK);
        CHECK(nc_amst_object_leaves(sent, 0, 1, &other, &err) == NC_ERR_OK);
        CHECK(leaf == other && leaf == nc_crc32(0, from, size < CHUNK ? size : CHUNK));
    }
    end_object(&pair.a, sent);
    end_object(&pair.b, received);
    close_engines(&pair);
    free(from);
    free(to);
}

static int accept_again(struct engines *pair, const uint8_t *hello)
{
    int near = socket(AF_INET, SOCK_STREAM, 0);
    int code;
    struct nc_err err = {0};

    CHECK(connect(near, (struct sockaddr *)&pair->address, sizeof pair->address) == 0);
    code = nc_amst_link_accepted(pair->b.link, accept(pair->listener, NULL, NULL), hello,
                                 NC_FRAME_HELLO_BYTES, &err);
    (void)close(near);
    return code;
}

static void greet_in_any_order_and_once(void)
{
    struct engines pair;
    uint8_t hello[4][NC_FRAME_HELLO_BYTES];
    uint8_t late[NC_FRAME_HELLO_BYTES];
    int far[4];
    struct nc_err err = {0};

    open_engines(&pair, 1, 2);
    for (uint32_t id = 1; id <= 3; id++)
        far[id] = greet(&pair, id, hello[id]);
    for (uint32_t id = 3; id >= 1; id--)
        CHECK(nc_amst_link_accepted(pair.b.link, far[id], hello[id], sizeof hello[id], &err) ==
              NC_ERR_OK);
    CHECK(await(&pair.a, NC_AMST_STREAM_UP, 3) && await(&pair.b, NC_AMST_STREAM_UP, 3));
    /* What was said once proves nothing any more, whether its stream is there or gone. */
    CHECK(accept_again(&pair, hello[2]) == NC_ERR_DENIED);
    CHECK(nc_amst_link_retire(pair.a.link, 2, &err) == NC_ERR_OK);
    CHECK(await(&pair.a, NC_AMST_STREAM_CLOSED, 1) && await(&pair.b, NC_AMST_STREAM_CLOSED, 1));
    CHECK(accept_again(&pair, hello[2]) == NC_ERR_DENIED);
    /* Far below what is remembered, everything counts as used; what is remembered, moves along. */
    far[0] = greet(&pair, 4, late);
    (void)add_stream(&pair, 4 + 1023);
    CHECK(nc_amst_link_accepted(pair.b.link, far[0], late, sizeof late, &err) == NC_ERR_OK);
    far[0] = greet(&pair, 5, late);
    (void)add_stream(&pair, 5 + 1024);
    CHECK(nc_amst_link_accepted(pair.b.link, far[0], late, sizeof late, &err) == NC_ERR_DENIED);
    CHECK(accept_again(&pair, hello[3]) == NC_ERR_DENIED);
    (void)add_stream(&pair, 4 + 1024);
    (void)add_stream(&pair, 100000);
    (void)add_stream(&pair, 100000 - 1023);
    close_engines(&pair);
}

static void keep_holes(int encrypt)
{
    struct engines pair;
    size_t size = 40u * 1024 * 1024 + 4096;
    int from = memfd_create("from", 0);
    int to = memfd_create("to", 0);
    uint8_t block[8192];
    struct nc_amst_object *sent;
    struct nc_amst_object *received;
    struct nc_amst_object_info info;
    struct nc_err err = {0};
    struct nc_amst_target target = {
        .number = 1, .fd = to, .size = size, .chunk = CHUNK, .sparse = 1};
    struct nc_amst_source source = {
        .number = 1, .fd = from, .size = size, .chunk = CHUNK, .sparse = 1};
    uint8_t back[8192];

    fill(block, sizeof block, 3);
    CHECK(ftruncate(from, (off_t)size) == 0 && ftruncate(to, (off_t)size) == 0);
    CHECK(pwrite(from, block, sizeof block, 10 * 1024 * 1024 + 4096) == sizeof block);
    open_engines(&pair, encrypt, 2);
    (void)add_stream(&pair, 1);
    (void)add_stream(&pair, 2);
    CHECK(nc_amst_receive(pair.b.link, &target, &received, &err) == NC_ERR_OK);
    CHECK(nc_amst_send(pair.a.link, &source, &sent, &err) == NC_ERR_OK);
    CHECK(await(&pair.b, NC_AMST_OBJECT_DONE, 1));
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    CHECK(pread(to, back, sizeof back, 10 * 1024 * 1024 + 4096) == sizeof back);
    CHECK(memcmp(back, block, sizeof back) == 0);
    CHECK(lseek(to, 0, SEEK_DATA) == 10 * 1024 * 1024 + 4096);
    CHECK(lseek(to, 10 * 1024 * 1024 + 3 * 4096, SEEK_DATA) == -1);
    nc_amst_object_info(sent, &info);
    CHECK(info.moved_bytes == CHUNK && info.zero_bytes == size - CHUNK);
    end_object(&pair.a, sent);
    end_object(&pair.b, received);
    close_engines(&pair);
    (void)close(from);
    (void)close(to);
}

static void survive_dead_streams(int encrypt)
{
    struct engines pair;
    size_t size = 64u * 1024 * 1024;
    uint8_t *from = malloc(size);
    uint8_t *to = calloc(1, size);
    struct nc_amst_object *sent;
    struct nc_amst_object *received;
    struct nc_amst_object_info info;
    struct nc_err err = {0};
    struct nc_amst_target target = {
        .number = 3, .fd = -1, .memory = to, .size = size, .chunk = CHUNK};
    struct nc_amst_source source = {.number = 3,
                                    .fd = -1,
                                    .memory = from,
                                    .size = size,
                                    .chunk = CHUNK,
                                    .limit_bps = 100u * 1024 * 1024};
    int far[6];

    fill(from, size, 77);
    open_engines(&pair, encrypt, 2);
    for (unsigned i = 0; i < 4; i++)
        far[i] = add_stream(&pair, i + 1);
    CHECK(nc_amst_receive(pair.b.link, &target, &received, &err) == NC_ERR_OK);
    CHECK(nc_amst_send(pair.a.link, &source, &sent, &err) == NC_ERR_OK);
    for (unsigned i = 0; i < 3; i++) {
        (void)usleep(50000);
        (void)shutdown(far[i], SHUT_RDWR);
    }
    far[4] = add_stream(&pair, 5);
    CHECK(await(&pair.a, NC_AMST_STREAM_LOST, 3));
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    CHECK(await(&pair.b, NC_AMST_OBJECT_DONE, 1));
    CHECK(memcmp(from, to, size) == 0);
    nc_amst_object_info(sent, &info);
    CHECK(info.done_bytes == size);
    CHECK(nc_amst_link_retire(pair.a.link, 5, &err) == NC_ERR_OK);
    CHECK(await(&pair.a, NC_AMST_STREAM_CLOSED, 1));
    CHECK(await(&pair.b, NC_AMST_STREAM_CLOSED, 1));
    end_object(&pair.a, sent);
    end_object(&pair.b, received);
    close_engines(&pair);
    free(from);
    free(to);
}

static void pipe_through(int encrypt, size_t size, unsigned streams)
{
    struct engines pair;

    open_engines(&pair, encrypt, 2);
    for (unsigned i = 1; i <= streams; i++)
        (void)add_stream(&pair, i);
    pump(&pair, size);
    close_engines(&pair);
}

/* More frames than one key may serve for, in the smallest chunks. */
static void change_keys(void)
{
    struct engines pair;
    size_t size = (NC_FRAME_EPOCH_FRAMES + 3000u) * (size_t)4096;
    uint8_t *from = malloc(size);
    uint8_t *to = calloc(1, size);
    struct nc_amst_object *sent;
    struct nc_amst_object *received;
    struct nc_amst_link_info info;
    struct nc_err err = {0};
    struct nc_amst_target target = {
        .number = 1, .fd = -1, .memory = to, .size = size, .chunk = 4096};
    struct nc_amst_source source = {
        .number = 1, .fd = -1, .memory = from, .size = size, .chunk = 4096};

    fill(from, size, 21);
    open_engines(&pair, 1, 1);
    (void)add_stream(&pair, 1);
    CHECK(nc_amst_receive(pair.b.link, &target, &received, &err) == NC_ERR_OK);
    CHECK(nc_amst_send(pair.a.link, &source, &sent, &err) == NC_ERR_OK);
    CHECK(await(&pair.b, NC_AMST_OBJECT_DONE, 1));
    CHECK(await(&pair.a, NC_AMST_OBJECT_DONE, 1));
    CHECK(memcmp(from, to, size) == 0);
    nc_amst_link_info(pair.a.link, &info);
    CHECK(info.rekeys == 1);
    CHECK(pair.a.seen[NC_AMST_STREAM_LOST] == 0);
    end_object(&pair.a, sent);
    end_object(&pair.b, received);
    close_engines(&pair);
    free(from);
    free(to);
}

static void refuse_what_cannot_be_written(void)
{
    struct engines pair;
    uint8_t from[4096] = {1};
    int null = memfd_create("readonly", MFD_ALLOW_SEALING);
    struct nc_amst_object *sent;
    struct nc_amst_object *received;
    struct nc_err err = {0};
    struct nc_amst_target target = {.number = 1, .fd = null, .size = 4096, .chunk = CHUNK};
    struct nc_amst_source source = {
        .number = 1, .fd = -1, .memory = from, .size = 4096, .chunk = CHUNK};

    CHECK(ftruncate(null, 4096) == 0 && fcntl(null, F_ADD_SEALS, F_SEAL_WRITE) == 0);
    open_engines(&pair, 1, 1);
    (void)add_stream(&pair, 1);
    CHECK(nc_amst_receive(pair.b.link, &target, &received, &err) == NC_ERR_OK);
    CHECK(nc_amst_send(pair.a.link, &source, &sent, &err) == NC_ERR_OK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_FAILED, 1));
    CHECK(pair.a.code == NC_ERR_SYSTEM);
    CHECK(await(&pair.b, NC_AMST_OBJECT_FAILED, 1));
    end_object(&pair.a, sent);
    end_object(&pair.b, received);
    /* Nobody expects this one. */
    source.number = 2;
    CHECK(nc_amst_send(pair.a.link, &source, &sent, &err) == NC_ERR_OK);
    CHECK(await(&pair.a, NC_AMST_OBJECT_FAILED, 2));
    CHECK(pair.a.code == NC_ERR_NOT_FOUND);
    end_object(&pair.a, sent);
    close_engines(&pair);
    (void)close(null);
}

int main(void)
{
    struct nc_err err;

    if (nc_crypto_load(NULL, &err) != NC_ERR_OK) {
        (void)fprintf(stderr, "no libcrypto: %s\n", err.reason);
        return 1;
    }
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        move_memory(encrypt, 0, 1, 1, 0);
        move_memory(encrypt, 1, 1, 1, 0);
        move_memory(encrypt, CHUNK, 1, 1, 1);
        move_memory(encrypt, 10 * CHUNK + 17, 3, 2, 1);
        move_memory(encrypt, 32u * 1024 * 1024 + 5, 8, 2, 0);
        move_memory(encrypt, 32u * 1024 * 1024 + 5, 64, 2, 1);
        keep_holes(encrypt);
        survive_dead_streams(encrypt);
        pipe_through(encrypt, 0, 1);
        pipe_through(encrypt, 5, 2);
        pipe_through(encrypt, 20u * 1024 * 1024 + 3, 4);
    }
    refuse_what_cannot_be_written();
    change_keys();
    greet_in_any_order_and_once();
    return CHECK_RESULT;
}
