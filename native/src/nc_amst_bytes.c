/* The bytes of objects: how they are read and written, and where there are none. */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc_amst_internal.h"
#include "nc_zero.h"

/* Holes are kept in units of a page: file systems know no smaller ones that matter. */
#define BLOCK_BYTES 4096

int nc_object_read(const struct nc_amst_object *object, uint64_t offset, size_t size, uint8_t *area,
                   struct nc_err *err)
{
    size_t have = 0;

    if (object->source != NULL) {
        memcpy(area, object->source + offset, size);
        return NC_ERR_OK;
    }
    while (have < size) {
        ssize_t got = pread(object->fd, area + have, size - have, (off_t)(offset + have));

        if (got > 0)
            have += (size_t)got;
        else if (got == 0)
            return nc_err_set(err, NC_ERR_LIMIT, 0, "the source ended at %llu, before its size",
                              (unsigned long long)(offset + have));
        else if (errno != EINTR)
            return nc_err_set(err, NC_ERR_SYSTEM, errno, "reading the source failed");
    }
    return NC_ERR_OK;
}

static int write_at(int fd, const uint8_t *data, size_t size, uint64_t offset, struct nc_err *err)
{
    while (size > 0) {
        ssize_t put = pwrite(fd, data, size, (off_t)offset);

        if (put > 0) {
            data += put;
            size -= (size_t)put;
            offset += (uint64_t)put;
        } else if (put == 0 || errno != EINTR) {
            return nc_err_set(err, NC_ERR_SYSTEM, put == 0 ? EIO : errno, "writing failed");
        }
    }
    return NC_ERR_OK;
}

/* Whether a block of zeros need not be written, since the target reads as zero there. */
static bool is_there(const struct nc_amst_object *object, const uint8_t *data, size_t size,
                     uint64_t offset)
{
    uint8_t found[BLOCK_BYTES];
    ssize_t got;

    if (!nc_is_zero(data, size))
        return false;
    if (!object->used)
        return true;
    got = pread(object->fd, found, size, (off_t)offset);
    return got >= 0 && nc_is_zero(found, (size_t)got);
}

int nc_object_clear(const struct nc_amst_object *object, uint64_t offset, uint64_t length,
                    struct nc_err *err)
{
    static const uint8_t zeros[65536];

    if (object->sparse) {
        off_t data = object->used ? lseek(object->fd, (off_t)offset, SEEK_DATA) : -1;

        if (!object->used || (data < 0 && errno == ENXIO) ||
            (data >= 0 && (uint64_t)data >= offset + length) ||
            fallocate(object->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                      (off_t)length) == 0)
            return NC_ERR_OK;
    }
    while (length > 0) {
        size_t part = length < sizeof zeros ? (size_t)length : sizeof zeros;
        int code = object->target != NULL ? nc_object_write(object, offset, part, zeros, err)
                                          : write_at(object->fd, zeros, part, offset, err);

        if (code != NC_ERR_OK)
            return code;
        offset += part;
        length -= part;
    }
    return NC_ERR_OK;
}

int nc_object_write(const struct nc_amst_object *object, uint64_t offset, size_t size,
                    const uint8_t *data, struct nc_err *err)
{
    size_t start = 0;

    if (object->target != NULL) {
        memcpy(object->target + offset, data, size);
        return NC_ERR_OK;
    }
    if (!object->sparse)
        return write_at(object->fd, data, size, offset, err);
    for (size_t at = 0; at < size; at += BLOCK_BYTES) {
        size_t block = size - at < BLOCK_BYTES ? size - at : BLOCK_BYTES;
        int code = NC_ERR_OK;

        if (!is_there(object, data + at, block, offset + at))
            continue;
        if (at > start)
            code = write_at(object->fd, data + start, at - start, offset + start, err);
        if (code != NC_ERR_OK)
            return code;
        start = at + block;
    }
    if (start < size)
        return write_at(object->fd, data + start, size - start, offset + start, err);
    return NC_ERR_OK;
}

uint64_t nc_object_next_data(const struct nc_amst_object *object, uint64_t offset)
{
    off_t found = lseek(object->fd, (off_t)offset, SEEK_DATA);
    struct stat file;

    if (found >= 0)
        return (uint64_t)found;
    /* ENXIO: nothing but a hole up to the end. Anything else: the file system knows no holes. */
    if (errno != ENXIO)
        return offset;
    /* Beyond the end of a file that became shorter there is no hole either: reading it will say. */
    if (fstat(object->fd, &file) != 0 || (uint64_t)file.st_size < object->size)
        return offset;
    return object->size;
}
