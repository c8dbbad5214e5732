#include "nc_rdma.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../src/nc_rdma_immediate.h"
#include "check.h"
#include "nc_err.h"
#include "rdma_pair.h"

#define OLD BUILD_DIRECTORY "/libold_verbs.so"

static int code_with(const char *fault, const char *device, struct nc_err *err)
{
    struct nc_rdma *rdma = (struct nc_rdma *)&check_failures;
    int code;

    set_fault(fault);
    code = open_rdma(device, &rdma, err);
    CHECK((code == NC_ERR_OK) == (rdma != NULL));
    nc_rdma_close(rdma);
    set_fault("");
    return code;
}

static void the_immediate_value_says_the_same_on_both_sides(void)
{
    static const uint32_t slots[] = {0, 1, 2, 511, 1022, 1023};
    const size_t count = sizeof slots / sizeof *slots;
    struct nc_rdma_immediate read;

    for (size_t i = 0; i < count * count * count; i++) {
        const uint32_t some[3] = {slots[i % count], slots[i / count % count],
                                  slots[i / count / count]};

        /* None to two with a message, then one to three without. */
        for (uint32_t kind = 0; kind < 6; kind++) {
            struct nc_rdma_immediate value = {.has_message = kind < 3,
                                              .count = kind < 3 ? kind : kind - 2};

            /* A slot is returned once only. */
            if ((value.count > 1 && some[0] == some[1]) ||
                (value.count > 2 && (some[1] == some[2] || some[0] == some[2])))
                continue;
            value.message = value.has_message ? some[2] : 0;
            memcpy(value.returned, some, value.count * sizeof *some);
            CHECK(nc_rdma_immediate_read(nc_rdma_immediate_write(&value), &read));
            CHECK(read.has_message == value.has_message && read.count == value.count);
            CHECK(read.message == value.message);
            CHECK(memcmp(read.returned, some, value.count * sizeof *some) == 0);
        }
    }
    CHECK(!nc_rdma_immediate_read(1, &read));                                /* 0, with a c */
    CHECK(!nc_rdma_immediate_read(1u << 10, &read));                         /* 0, with a b */
    CHECK(!nc_rdma_immediate_read(1u << 30 | 1, &read));                     /* 1, with a c */
    CHECK(!nc_rdma_immediate_read(3u << 30 | 5 << 20 | 5 << 10 | 6, &read)); /* 3, a twice */
}

static void a_device_and_a_port_that_can_be_used_are_chosen(void)
{
    struct nc_err err = {0};
    struct nc_rdma_options options = {.library = FAKE, .gid_index = -1};
    struct nc_rdma *rdma;

    CHECK(nc_rdma_open(&options, &rdma, &err) == NC_ERR_OK);
    CHECK_TEXT(nc_rdma_device_name(rdma), "mlx5_0");
    nc_rdma_close(rdma);
    options.device = "rxe0";
    options.port = 1;
    CHECK(nc_rdma_open(&options, &rdma, &err) == NC_ERR_OK);
    CHECK_TEXT(nc_rdma_device_name(rdma), "rxe0");
    nc_rdma_close(rdma);
    options.device = "mlx5_0";
    options.port = 2;
    CHECK(nc_rdma_open(&options, &rdma, &err) == NC_ERR_UNAVAILABLE);
    CHECK_TEXT(err.reason, "mlx5_0 has no active port");
    options.port = 3;
    CHECK(nc_rdma_open(&options, &rdma, &err) == NC_ERR_NOT_FOUND);
    options.port = 256;
    CHECK(nc_rdma_open(&options, &rdma, &err) == NC_ERR_INVALID);
    CHECK(code_with("", "nonesuch", &err) == NC_ERR_NOT_FOUND);
    CHECK_TEXT(err.reason, "there is no RDMA device nonesuch");
    CHECK(code_with("", "siw0", &err) == NC_ERR_UNAVAILABLE);
    CHECK_TEXT(err.reason, "siw0 is neither InfiniBand nor RoCE");
    nc_rdma_close(NULL);
}

static void what_keeps_a_device_from_being_used_is_told(void)
{
    struct nc_err err = {0};

    CHECK(code_with("enosys", "", &err) == NC_ERR_UNAVAILABLE);
    CHECK(err.os_errno == ENOSYS);
    CHECK(code_with("down", "", &err) == NC_ERR_UNAVAILABLE);
    CHECK_TEXT(err.reason, "mlx5_0 has no active port");
    CHECK(code_with("noport", "rxe0", &err) == NC_ERR_DENIED);
    CHECK(code_with("nodevice", "rxe0", &err) == NC_ERR_SYSTEM);
    /* Of several devices the forbidden one is named, not the last one. */
    CHECK(code_with("noopen", "", &err) == NC_ERR_DENIED);
    CHECK_TEXT(err.reason, "ibv_open_device failed for mlx5_0");
    CHECK(code_with("nogid", "rxe0", &err) == NC_ERR_UNAVAILABLE);
    CHECK(strstr(err.reason, "rxe0 port 1 has no address") != NULL);
}

static void a_kernel_that_does_not_copy_dma_pages_on_fork_is_refused(void)
{
    struct nc_err err = {0};
    const struct nc_rdma_options options = {.library = OLD, .gid_index = -1};
    struct nc_rdma *rdma;

    CHECK(code_with("fork", "", &err) == NC_ERR_UNAVAILABLE);
    CHECK(strstr(err.reason, "RDMAV_FORK_SAFE=1") != NULL);
    /* A library that cannot say leaves it to the kernel's version, which is newer here. */
    CHECK(nc_rdma_open(&options, &rdma, &err) == NC_ERR_OK);
    nc_rdma_close(rdma);
}

/* Which of the false library's four GIDs a channel tells its peer: their last bytes are 1 to 4. */
static int gid_with(const char *const types[4], int index)
{
    char directory[] = "/tmp/nc_rdma_XXXXXX";
    char path[128];
    struct nc_rdma_options options = {.library = FAKE, .device = "rxe0", .gid_index = index};
    struct nc_rdma *rdma = NULL;
    struct nc_rdma_channel *channel = NULL;
    struct nc_rdma_peer local = {0};
    static const char *const levels[] = {"rxe0", "rxe0/ports", "rxe0/ports/1",
                                         "rxe0/ports/1/gid_attrs", "rxe0/ports/1/gid_attrs/types"};

    CHECK(mkdtemp(directory) != NULL);
    for (size_t i = 0; i < 5; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", directory, levels[i]);
        CHECK(mkdir(path, 0700) == 0);
    }
    for (int i = 0; i < 4; i++) {
        FILE *file;

        if (types[i] == NULL)
            continue;
        (void)snprintf(path, sizeof path, "%s/%s/%d", directory, levels[4], i);
        file = fopen(path, "w");
        CHECK(file != NULL && fprintf(file, "%s\n", types[i]) > 0 && fclose(file) == 0);
    }
    CHECK(setenv("FAKE_VERBS_SYSFS", directory, 1) == 0);
    if (nc_rdma_open(&options, &rdma, NULL) == NC_ERR_OK &&
        nc_rdma_channel_open(rdma, 2, 4096, &channel, NULL) == NC_ERR_OK)
        nc_rdma_channel_local(channel, &local);
    nc_rdma_channel_close(channel);
    nc_rdma_close(rdma);
    for (int i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof path, "%s/%s/%d", directory, levels[4], i);
        (void)unlink(path);
    }
    for (size_t i = 5; i > 0; i--) {
        (void)snprintf(path, sizeof path, "%s/%s", directory, levels[i - 1]);
        CHECK(rmdir(path) == 0);
    }
    CHECK(rmdir(directory) == 0);
    CHECK(unsetenv("FAKE_VERBS_SYSFS") == 0);
    return local.gid[15];
}

static void the_address_that_routers_and_switches_know_best_is_chosen(void)
{
    static const char *const both[4] = {"IB/RoCE v1", "RoCE v2", "IB/RoCE v1", "RoCE v2"};
    static const char *const local_only[4] = {"IB/RoCE v1", "RoCE v2", "IB/RoCE v1", "IB/RoCE v1"};
    static const char *const soft[4] = {"RoCE v2", "RoCE v2", "RoCE v2", NULL};
    static const char *const unknown[4] = {NULL, NULL, NULL, NULL};

    CHECK(gid_with(both, -1) == 4);
    CHECK(gid_with(local_only, -1) == 2);
    CHECK(gid_with(soft, -1) == 3);
    CHECK(gid_with(unknown, -1) == 1);
    CHECK(gid_with(both, 2) == 3);
    CHECK(gid_with(both, 4) == 0); /* refused */
}

static int channel_with(const char *fault, struct nc_err *err)
{
    struct nc_rdma *rdma;
    struct nc_rdma_channel *channel = (struct nc_rdma_channel *)&check_failures;
    int code;

    CHECK(open_rdma("rxe0", &rdma, err) == NC_ERR_OK);
    set_fault(fault);
    code = nc_rdma_channel_open(rdma, 4, 8192, &channel, err);
    CHECK((code == NC_ERR_OK) == (channel != NULL));
    nc_rdma_channel_close(channel);
    set_fault("");
    /* The false library ends the process if an object is left. */
    nc_rdma_close(rdma);
    return code;
}

static void each_step_of_opening_a_channel_is_undone_when_the_next_fails(void)
{
    struct nc_err err = {0};

    CHECK(channel_with("", &err) == NC_ERR_OK);
    CHECK(channel_with("nochannel", &err) == NC_ERR_SYSTEM);
    CHECK_TEXT(err.reason, "ibv_create_comp_channel failed for rxe0");
    CHECK(err.os_errno == EMFILE);
    CHECK(channel_with("nopd", &err) == NC_ERR_MEMORY);
    CHECK_TEXT(err.reason, "ibv_alloc_pd failed for rxe0");
    CHECK(channel_with("regsecond", &err) != NC_ERR_OK);
    CHECK(strstr(err.reason, "ibv_reg_mr") != NULL);
    CHECK(channel_with("nocq", &err) != NC_ERR_OK);
    CHECK(strstr(err.reason, "ibv_create_cq") != NULL);
    CHECK(channel_with("notifyfails", &err) == NC_ERR_SYSTEM);
    CHECK_TEXT(err.reason, "ibv_req_notify_cq failed on rxe0");
    CHECK(channel_with("noqp", &err) != NC_ERR_OK);
    CHECK(strstr(err.reason, "ibv_create_qp") != NULL);
    CHECK(channel_with("noinit", &err) == NC_ERR_SYSTEM);
    CHECK_TEXT(err.reason, "ibv_modify_qp to INIT failed on rxe0 port 1");
    nc_rdma_channel_close(NULL);
}

static void the_limit_on_locked_memory_is_named(void)
{
    struct nc_err err = {0};
    struct rlimit before;
    struct rlimit low;

    CHECK(getrlimit(RLIMIT_MEMLOCK, &before) == 0);
    low = before;
    low.rlim_cur = 65536;
    CHECK(setrlimit(RLIMIT_MEMLOCK, &low) == 0);
    CHECK(channel_with("regenomem", &err) == NC_ERR_DENIED);
    CHECK(err.os_errno == ENOMEM);
    CHECK(strstr(err.reason,
                 "ibv_reg_mr may not lock 32768 bytes: RLIMIT_MEMLOCK is 65536 bytes") != NULL);
    CHECK(channel_with("regeperm", &err) == NC_ERR_DENIED);
    CHECK(err.os_errno == EPERM);
    CHECK(channel_with("noqp", &err) == NC_ERR_DENIED);
    CHECK(strstr(err.reason, "RLIMIT_MEMLOCK is 65536") != NULL);
    CHECK(setrlimit(RLIMIT_MEMLOCK, &before) == 0);
    low.rlim_cur = low.rlim_max = RLIM_INFINITY;
    /* Only where this process may: then the kernel meant what it said. */
    if (setrlimit(RLIMIT_MEMLOCK, &low) == 0) {
        CHECK(channel_with("regenomem", &err) == NC_ERR_MEMORY);
        CHECK(setrlimit(RLIMIT_MEMLOCK, &before) == 0);
    }
}

static void slots_that_no_device_could_serve_are_refused(void)
{
    static const uint32_t wrong[][2] = {{0, 4096}, {1, 4096}, {1025, 4096}, {4, 0},
                                        {4, 4095}, {4, 4097}, {4, 16 << 20}};
    struct nc_err err = {0};
    struct nc_rdma *rdma;
    struct nc_rdma_channel *channel;

    CHECK(open_rdma("rxe0", &rdma, &err) == NC_ERR_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(nc_rdma_channel_open(rdma, wrong[i][0], wrong[i][1], &channel, &err) ==
              NC_ERR_INVALID);
    CHECK(strstr(err.reason, "rxe0 moves at most 8388608 at once") != NULL);
    CHECK(channel == NULL);
    nc_rdma_close(rdma);
}

static void a_peer_whose_figures_make_no_sense_is_refused(void)
{
    struct nc_err err = {0};
    struct nc_rdma *rdma;
    struct nc_rdma_channel *channel;
    struct nc_rdma_peer good;
    struct nc_rdma_peer bad;

    CHECK(open_rdma("rxe0", &rdma, &err) == NC_ERR_OK);
    CHECK(nc_rdma_channel_open(rdma, 4, 8192, &channel, &err) == NC_ERR_OK);
    nc_rdma_channel_local(channel, &good);
    CHECK(good.slots == 4 && good.slot_bytes == 8192 && good.mtu == 4096);
    CHECK(good.qpn != 0 && good.rkey != 0 && good.address % 4096 == 0 && good.psn <= 0xffffff);
#define REFUSED(field, value, name)                                                                \
    bad = good;                                                                                    \
    bad.field = value;                                                                             \
    CHECK(nc_rdma_channel_connect(channel, &bad, &err) == NC_ERR_INVALID);                         \
    CHECK(strstr(err.reason, "peer's " name) != NULL)
    REFUSED(slots, 1, "number of slots");
    REFUSED(slots, 1025, "number of slots");
    REFUSED(slot_bytes, 4096, "slot size");
    REFUSED(address, 0, "address");
    REFUSED(address, UINT64_MAX - 8192, "address");
    REFUSED(qpn, 0, "queue pair number");
    REFUSED(qpn, 1 << 24, "queue pair number");
    REFUSED(psn, 1 << 24, "packet sequence number");
    REFUSED(mtu, 1500, "MTU");
    REFUSED(mtu, 8192, "MTU");
#undef REFUSED
    bad = good;
    memset(bad.gid, 0, sizeof bad.gid);
    CHECK(nc_rdma_channel_connect(channel, &bad, &err) == NC_ERR_INVALID);
    /* None of those used the queue pair up. */
    CHECK(nc_rdma_channel_connect(channel, &good, &err) == NC_ERR_OK);
    CHECK(nc_rdma_channel_connect(channel, &good, &err) == NC_ERR_INVALID);
    nc_rdma_channel_close(channel);
    nc_rdma_close(rdma);
}

static void a_connection_that_fails_says_at_which_step(void)
{
    static const char *const faults[][2] = {{"recvfails", "ibv_post_recv failed on rxe0"},
                                            {"nortr", "ibv_modify_qp to RTR failed on rxe0"},
                                            {"norts", "ibv_modify_qp to RTS failed on rxe0"}};
    struct nc_err err = {0};
    struct nc_rdma *rdma;
    struct nc_rdma_channel *channel;
    struct nc_rdma_peer peer;
    uint32_t slot;

    CHECK(open_rdma("rxe0", &rdma, &err) == NC_ERR_OK);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        CHECK(nc_rdma_channel_open(rdma, 4, 8192, &channel, &err) == NC_ERR_OK);
        nc_rdma_channel_local(channel, &peer);
        set_fault(faults[i][0]);
        CHECK(nc_rdma_channel_connect(channel, &peer, &err) == NC_ERR_SYSTEM);
        CHECK(strstr(err.reason, faults[i][1]) != NULL);
        set_fault("");
        CHECK(nc_rdma_channel_acquire(channel, &slot) == NULL);
        nc_rdma_channel_close(channel);
    }
    nc_rdma_close(rdma);
}

int main(void)
{
    set_fault("");
    the_immediate_value_says_the_same_on_both_sides();
    a_device_and_a_port_that_can_be_used_are_chosen();
    what_keeps_a_device_from_being_used_is_told();
    a_kernel_that_does_not_copy_dma_pages_on_fork_is_refused();
    the_address_that_routers_and_switches_know_best_is_chosen();
    each_step_of_opening_a_channel_is_undone_when_the_next_fails();
    the_limit_on_locked_memory_is_named();
    slots_that_no_device_could_serve_are_refused();
    a_peer_whose_figures_make_no_sense_is_refused();
    a_connection_that_fails_says_at_which_step();
    return CHECK_RESULT;
}
