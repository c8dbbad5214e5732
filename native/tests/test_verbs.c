#include "nc_verbs.h"

#include <errno.h>
#include <stdlib.h>

#include "check.h"
#include "nc_err.h"

/* Set by the Makefile to libraries that stand in for libibverbs. */
#define FAKE BUILD_DIRECTORY "/libfake_verbs.so"
#define INCOMPLETE BUILD_DIRECTORY "/libincomplete_verbs.so"
#define UNVERSIONED BUILD_DIRECTORY "/libunversioned_verbs.so"

static int opens_with(const char *fault, struct nc_err *err)
{
    struct nc_verbs *verbs = (struct nc_verbs *)&check_failures;
    int code;

    CHECK(setenv("FAKE_VERBS", fault, 1) == 0);
    code = nc_verbs_open(FAKE, &verbs, err);
    CHECK((code == NC_ERR_OK) == (verbs != NULL));
    nc_verbs_close(verbs);
    return code;
}

static void what_means_no_rdma_is_told_from_what_is_forbidden(void)
{
    struct nc_err err = {0};

    CHECK(opens_with("enosys", &err) == NC_ERR_UNAVAILABLE);
    CHECK(err.os_errno == ENOSYS);
    CHECK(opens_with("enoent", &err) == NC_ERR_UNAVAILABLE);
    CHECK(opens_with("empty", &err) == NC_ERR_UNAVAILABLE);
    CHECK(opens_with("eperm", &err) == NC_ERR_DENIED);
    CHECK(err.os_errno == EPERM);
    CHECK(opens_with("", &err) == NC_ERR_OK);
}

static void a_library_that_does_not_fit_is_unavailable(void)
{
    struct nc_err err = {0};
    struct nc_verbs *verbs;

    CHECK(nc_verbs_open("libnonesuch.so.9", &verbs, &err) == NC_ERR_UNAVAILABLE);
    CHECK(strstr(err.reason, "libnonesuch.so.9") != NULL);
    CHECK(nc_verbs_open(INCOMPLETE, &verbs, &err) == NC_ERR_UNAVAILABLE);
    CHECK_TEXT(err.reason, "libibverbs has no ibv_query_port@IBVERBS_1.1");
    CHECK(verbs == NULL);
    CHECK(nc_verbs_open(UNVERSIONED, &verbs, &err) == NC_ERR_UNAVAILABLE);
    CHECK(strstr(err.reason, "ibv_get_device_list@IBVERBS_1.1") != NULL);
    CHECK(verbs == NULL);
    nc_verbs_close(NULL);
}

static void devices_and_ports_are_described(void)
{
    struct nc_err err = {0};
    struct nc_verbs *verbs;
    struct nc_verbs_device device;
    struct nc_verbs_port ports[2];
    size_t count;

    CHECK(setenv("FAKE_VERBS", "", 1) == 0);
    CHECK(nc_verbs_open(FAKE, &verbs, &err) == NC_ERR_OK);
    CHECK(nc_verbs_count(verbs) == 3);
    CHECK(nc_verbs_device(verbs, 0, &device, &err) == NC_ERR_OK);
    CHECK_TEXT(device.name, "mlx5_0");
    CHECK_TEXT(device.sysfs_path, "/sys/class/infiniband/mlx5_0");
    CHECK(device.guid == 0x0002c903002ff0a0);
    CHECK(device.node_type == 1 && device.transport == 0);
    CHECK(nc_verbs_ports(verbs, 0, ports, 2, &count, &err) == NC_ERR_OK);
    CHECK(count == 2);
    CHECK(ports[0].number == 1 && ports[0].state == 4 && ports[0].link_layer == 1);
    CHECK(ports[0].active_mtu == 4096 && ports[0].speed_bps == 100000000000);
    CHECK(ports[1].number == 2 && ports[1].state == 1);

    memset(ports, 0, sizeof ports);
    CHECK(nc_verbs_ports(verbs, 0, ports, 1, &count, &err) == NC_ERR_OK);
    CHECK(count == 2 && ports[1].number == 0);

    CHECK(nc_verbs_device(verbs, 3, &device, &err) == NC_ERR_INVALID);
    CHECK(nc_verbs_ports(verbs, 3, ports, 2, &count, &err) == NC_ERR_INVALID);
    nc_verbs_close(verbs);
}

static void ports_that_cannot_be_asked_say_why(void)
{
    struct nc_err err = {0};
    struct nc_verbs *verbs;
    struct nc_verbs_port ports[2];
    size_t count = 7;

    CHECK(nc_verbs_open(FAKE, &verbs, &err) == NC_ERR_OK);
    CHECK(setenv("FAKE_VERBS", "noopen", 1) == 0);
    CHECK(nc_verbs_ports(verbs, 0, ports, 2, &count, &err) == NC_ERR_DENIED);
    CHECK(count == 0);
    CHECK_TEXT(err.reason, "ibv_open_device failed");
    CHECK(setenv("FAKE_VERBS", "nodevice", 1) == 0);
    CHECK(nc_verbs_ports(verbs, 0, ports, 2, &count, &err) == NC_ERR_SYSTEM);
    CHECK(setenv("FAKE_VERBS", "noport", 1) == 0);
    CHECK(nc_verbs_ports(verbs, 0, ports, 2, &count, &err) == NC_ERR_DENIED);
    CHECK(count == 0);
    nc_verbs_close(verbs);
}

static void speeds_are_the_nominal_ones(void)
{
    CHECK(nc_verbs_speed_bps(2, 1) == 10000000000);     /* 4X SDR */
    CHECK(nc_verbs_speed_bps(2, 64) == 200000000000);   /* 4X HDR */
    CHECK(nc_verbs_speed_bps(8, 32) == 300000000000);   /* 12X EDR */
    CHECK(nc_verbs_speed_bps(16, 128) == 200000000000); /* 2X NDR */
    CHECK(nc_verbs_speed_bps(0, 32) == 0);
    CHECK(nc_verbs_speed_bps(2, 3) == 0);
}

int main(void)
{
    what_means_no_rdma_is_told_from_what_is_forbidden();
    a_library_that_does_not_fit_is_unavailable();
    devices_and_ports_are_described();
    ports_that_cannot_be_asked_say_why();
    speeds_are_the_nominal_ones();
    return CHECK_RESULT;
}
