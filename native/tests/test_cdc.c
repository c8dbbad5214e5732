#include "nc_cdc.h"

#include <stdlib.h>

#include "check.h"

#define SIZE 1000000

static const struct nc_cdc small = {512, 2048, 8192};
static uint64_t gear[256];

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void fill(uint8_t *data, size_t size, uint64_t seed)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(splitmix(&seed) >> 13);
}

static unsigned int highest_zeros(uint64_t value)
{
    return value == 0 ? 64 : (unsigned int)__builtin_clzll(value);
}

/* The definition: the hash of the 64 bytes before each place, computed anew. */
static size_t plain(const struct nc_cdc *cdc, unsigned int bits, const uint8_t *data, size_t size,
                    bool last)
{
    for (size_t end = cdc->minimum + 1; end <= size && end <= cdc->maximum; end++) {
        uint64_t hash = 0;

        for (size_t i = end - 64; i < end; i++)
            hash = 2 * hash + gear[data[i]];
        if (highest_zeros(hash) >= (end <= cdc->average ? bits + 2 : bits - 2))
            return end;
    }
    return size >= cdc->maximum ? cdc->maximum : last ? size : 0;
}

static void the_table_is_splitmix64(void)
{
    uint64_t state = 0;

    for (size_t i = 0; i < 256; i++)
        gear[i] = splitmix(&state);
    /* The first outputs of its authors' program, begun with 0. */
    CHECK(gear[0] == 0xe220a8397b1dcdafu);
    CHECK(gear[1] == 0x6e789e6aa1b965f4u);
    CHECK(gear[2] == 0x06c45d188009454fu);
}

static void blocks_end_where_the_definition_says(void)
{
    static const struct {
        struct nc_cdc cdc;
        unsigned int bits;
    } cases[] = {{{512, 2048, 8192}, 11}, {{64, 256, 300}, 8},  {{64, 257, 100000}, 8},
                 {{511, 511, 511}, 8},    {{300, 511, 512}, 8}, {{256, 1000, 1000}, 9}};
    static uint8_t data[60000];

    fill(data, sizeof data, 7);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct nc_cdc *cdc = &cases[i].cdc;
        size_t cut;

        CHECK(nc_cdc_check(cdc, NULL) == NC_ERR_OK);
        for (size_t at = 0; at < sizeof data; at += cut) {
            size_t left = sizeof data - at;

            cut = nc_cdc_cut(cdc, data + at, left, true);
            CHECK(cut == plain(cdc, cases[i].bits, data + at, left, true));
            CHECK(cut > 0 && cut <= cdc->maximum);
            CHECK(cut > cdc->minimum || cut == left || cut == cdc->maximum);
            if (cut == 0)
                return;
        }
    }
}

/* In a block of its exact size, so that the sanitizer sees a read behind it. */
static void an_end_is_the_same_however_much_is_there_or_it_is_not_told(void)
{
    static uint8_t data[20000];
    size_t whole;

    fill(data, sizeof data, 99);
    whole = nc_cdc_cut(&small, data, sizeof data, false);
    CHECK(whole > 0);
    for (size_t size = 0; size < 9000; size++) {
        uint8_t *part = malloc(size + (size == 0));

        if (part == NULL)
            abort();
        memcpy(part, data, size);
        CHECK(nc_cdc_cut(&small, part, size, false) == (size < whole ? 0 : whole));
        CHECK(nc_cdc_cut(&small, part, size, true) == (size < whole ? size : whole));
        free(part);
    }
}

static void many_ends_are_those_of_one_call_after_another(void)
{
    static uint8_t data[50000];
    size_t ends[200];
    size_t count;
    size_t at = 0;

    fill(data, sizeof data, 11);
    count = nc_cdc_ends(&small, data, sizeof data, true, ends, 200);
    CHECK(count > 10 && count < 200);
    for (size_t i = 0; i < count; i++) {
        at += nc_cdc_cut(&small, data + at, sizeof data - at, true);
        CHECK(ends[i] == at);
    }
    CHECK(at == sizeof data);
    /* The last block is known only where nothing follows it. */
    CHECK(nc_cdc_ends(&small, data, sizeof data, false, ends, 200) == count - 1);
    CHECK(nc_cdc_ends(&small, data, sizeof data, true, ends, 3) == 3);
    CHECK(nc_cdc_ends(&small, data, 0, true, ends, 3) == 0);
}

static void what_is_inserted_moves_the_ends_near_it_and_no_others(void)
{
    static uint8_t before[SIZE];
    static uint8_t after[SIZE + 100];
    static size_t old[SIZE / 512];
    static size_t new[SIZE / 512];
    size_t count;
    size_t other;
    size_t common = 0;

    fill(before, sizeof before, 5);
    memcpy(after, before, 300000);
    fill(after + 300000, 100, 6);
    memcpy(after + 300100, before + 300000, sizeof before - 300000);
    count = nc_cdc_ends(&small, before, sizeof before, true, old, SIZE / 512);
    other = nc_cdc_ends(&small, after, sizeof after, true, new, SIZE / 512);
    /* From the end, where they are moved by what was inserted. */
    while (common < count && common < other &&
           old[count - 1 - common] + 100 == new[other - 1 - common])
        common++;
    CHECK(count > SIZE / 4096);
    CHECK(common > count * 6 / 10);
    /* And the mean is near the average. */
    CHECK(SIZE / count > 1500 && SIZE / count < 3500);
}

static void bytes_that_repeat_make_the_largest_blocks_or_the_smallest(void)
{
    static uint8_t data[20000];

    CHECK(nc_cdc_cut(&small, data, sizeof data, false) == small.maximum);
    for (unsigned int byte = 0; byte < 256; byte++) {
        size_t cut;

        memset(data, (int)byte, sizeof data);
        cut = nc_cdc_cut(&small, data, sizeof data, false);
        CHECK(cut == plain(&small, 11, data, sizeof data, false));
    }
}

static void sizes_that_cannot_be_are_invalid(void)
{
    static const struct nc_cdc wrong[] = {{0, 0, 0},         {63, 256, 256},
                                          {64, 255, 256},    {512, 511, 1024},
                                          {64, 512, 511},    {64, 256, (1u << 30) + 1},
                                          {UINT32_MAX, 1, 1}};
    static const struct nc_cdc largest = {64, 1u << 30, 1u << 30};
    struct nc_err err = {0};

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK(nc_cdc_check(&wrong[i], &err) == NC_ERR_INVALID);
    CHECK(strstr(err.reason, "4294967295") != NULL);
    CHECK(nc_cdc_check(&largest, &err) == NC_ERR_OK);
}

int main(void)
{
    the_table_is_splitmix64();
    blocks_end_where_the_definition_says();
    an_end_is_the_same_however_much_is_there_or_it_is_not_told();
    many_ends_are_those_of_one_call_after_another();
    what_is_inserted_moves_the_ends_near_it_and_no_others();
    bytes_that_repeat_make_the_largest_blocks_or_the_smallest();
    sizes_that_cannot_be_are_invalid();
    return CHECK_RESULT;
}
