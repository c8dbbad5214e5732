#include "nc_tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nc_err.h"

static const char *const paths[] = {
    [NC_TCP_AVAILABLE] = "/proc/sys/net/ipv4/tcp_available_congestion_control",
    [NC_TCP_ALLOWED] = "/proc/sys/net/ipv4/tcp_allowed_congestion_control",
    [NC_TCP_DEFAULT] = "/proc/sys/net/ipv4/tcp_congestion_control",
};

static enum nc_err_code code_of(int os_errno)
{
    switch (os_errno) {
    case ENOENT:
        return NC_ERR_NOT_FOUND;
    case EPERM:
    case EACCES:
        return NC_ERR_DENIED;
    case EBADF:
    case ENOTSOCK:
    case EINVAL:
        return NC_ERR_INVALID;
    case ENOPROTOOPT:
    case EAFNOSUPPORT:
        return NC_ERR_UNAVAILABLE;
    default:
        return NC_ERR_SYSTEM;
    }
}

int nc_tcp_list(int which, char *ret_text, size_t size, struct nc_err *err)
{
    size_t used = 0;
    int fd;

    if (which < 0 || (size_t)which >= sizeof paths / sizeof paths[0] || size == 0)
        return nc_err_set(err, NC_ERR_INVALID, 0, "no such list");
    fd = open(paths[which], O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        int saved = errno;

        /* A kernel without IPv4, or a container that hides /proc/sys. */
        return nc_err_set(err, saved == ENOENT ? NC_ERR_UNAVAILABLE : code_of(saved), saved,
                          "cannot open %s", paths[which]);
    }
    for (;;) {
        ssize_t count = read(fd, ret_text + used, size - used);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            int saved = errno;

            close(fd);
            return nc_err_set(err, code_of(saved), saved, "cannot read %s", paths[which]);
        }
        if (count == 0)
            break;
        used += (size_t)count;
        if (used == size) {
            close(fd);
            return nc_err_set(err, NC_ERR_LIMIT, 0, "%s holds more than %zu bytes", paths[which],
                              size - 1);
        }
    }
    close(fd);
    while (used > 0 && (ret_text[used - 1] == '\n' || ret_text[used - 1] == ' '))
        used--;
    ret_text[used] = '\0';
    return NC_ERR_OK;
}

int nc_tcp_get(int fd, char *ret_name, size_t size, struct nc_err *err)
{
    char name[NC_TCP_NAME_BYTES] = {0};
    socklen_t length = sizeof name;
    size_t used;

    if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) < 0) {
        int saved = errno;

        return nc_err_set(err, code_of(saved), saved, "cannot read TCP_CONGESTION");
    }
    used = strnlen(name, sizeof name);
    if (used >= size)
        return nc_err_set(err, NC_ERR_LIMIT, 0, "name needs %zu bytes", used + 1);
    memcpy(ret_name, name, used);
    ret_name[used] = '\0';
    return NC_ERR_OK;
}

int nc_tcp_set(int fd, const char *name, struct nc_err *err)
{
    char chosen[NC_TCP_NAME_BYTES];
    size_t length = strnlen(name, NC_TCP_NAME_BYTES);
    int code;

    if (length == 0 || length == NC_TCP_NAME_BYTES)
        return nc_err_set(err, NC_ERR_INVALID, 0, "a name has 1 to %d characters",
                          NC_TCP_NAME_BYTES - 1);
    if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)length) < 0) {
        int saved = errno;

        return nc_err_set(err, code_of(saved), saved, "cannot choose %s", name);
    }
    /* Read back: a BPF program may have answered the call without changing the socket. */
    code = nc_tcp_get(fd, chosen, sizeof chosen, err);
    if (code != NC_ERR_OK)
        return code;
    if (strncmp(chosen, name, sizeof chosen) != 0)
        return nc_err_set(err, NC_ERR_DENIED, 0, "chose %s but the socket uses %s", name, chosen);
    return NC_ERR_OK;
}

int nc_tcp_probe(const char *name, struct nc_err *err)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int code;

    if (fd < 0) {
        int saved = errno;

        return nc_err_set(err, code_of(saved), saved, "cannot open a socket");
    }
    code = nc_tcp_set(fd, name, err);
    close(fd);
    return code;
}

int nc_tcp_info(int fd, struct nc_tcp_info *ret_info, struct nc_err *err)
{
    struct tcp_info info;
    socklen_t size = sizeof info;

    /* An older kernel fills less and says how much: what it does not know stays zero. */
    memset(&info, 0, sizeof info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0) {
        int saved = errno;

        return nc_err_set(err, code_of(saved), saved, "cannot read TCP_INFO");
    }
    *ret_info = (struct nc_tcp_info){
        .rtt_us = info.tcpi_rtt,
        .rttvar_us = info.tcpi_rttvar,
        .min_rtt_us = info.tcpi_min_rtt,
        .segments_out = info.tcpi_data_segs_out,
        .total_retrans = info.tcpi_total_retrans,
        .needless_retrans = info.tcpi_dsack_dups,
        .delivered = info.tcpi_delivered,
        .delivered_ce = info.tcpi_delivered_ce,
        .ecn = (info.tcpi_options & TCPI_OPT_ECN) != 0,
        .app_limited = info.tcpi_delivery_rate_app_limited,
        .delivery_rate = info.tcpi_delivery_rate,
    };
    return NC_ERR_OK;
}
