/*
 * Records what an emulated Arm core executes between two markers: a QEMU plugin (API 4).
 *
 * The guest marks a section by the harmless system call getpriority(0x5EED, k): k = 1 begins one,
 * k = 2 begins one with empty simulated caches, k = 0 ends it.
 *
 * Arguments:
 *   blocks=FILE   text: one line per translated block, "ID ADDRESS WORD WORD ..." in hexadecimal
 *   trace=FILE    binary: the block IDs in execution order, uint32 little endian
 *   l1=SIZE:WAYS,l2=SIZE:WAYS   simulate a data cache of two levels, 64-byte lines, LRU,
 *                 write-allocate, and print "misses L1 L2" at the end of each section
 *
 * Blocks and caches are recorded in separate runs: callbacks for memory accesses split blocks.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { SYS_GETPRIORITY = 141, MARK = 0x5EED, LINE_BITS = 6, MOST_INSNS = 4096 };

struct cache {
    unsigned sets, ways;
    uint64_t *tags;  /* sets x ways, the most recently used first */
    uint64_t misses;
};

static FILE *blocks, *trace;
static struct cache l1, l2;
static int simulate;
static uint32_t next_id;
static volatile int recording;
static unsigned int recorder; /* the virtual CPU that set the marker: others belong to other threads */

static void cache_clear(struct cache *cache)
{
    memset(cache->tags, 0xff, sizeof(uint64_t) * cache->sets * cache->ways);
}

static void cache_open(struct cache *cache, const char *text)
{
    unsigned size = 0, ways = 0;
    if (sscanf(text, "%u:%u", &size, &ways) != 2 || !ways || size % (ways << LINE_BITS)) {
        fprintf(stderr, "trace: cache '%s': expected BYTES:WAYS\n", text);
        exit(2);
    }
    cache->ways = ways;
    cache->sets = (size >> LINE_BITS) / ways;
    cache->tags = malloc(sizeof(uint64_t) * cache->sets * ways);
    cache_clear(cache);
}

/* Returns whether the line was there; it is afterwards. */
static int cache_touch(struct cache *cache, uint64_t line)
{
    uint64_t *set = cache->tags + (size_t)(line % cache->sets) * cache->ways;
    unsigned way = 0;
    while (way < cache->ways && set[way] != line) {
        way++;
    }
    int hit = way < cache->ways;
    if (!hit) {
        cache->misses++;
        way = cache->ways - 1;
    }
    memmove(set + 1, set, sizeof(uint64_t) * way);
    set[0] = line;
    return hit;
}

static void on_memory(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    (void)data;
    if (vcpu != recorder) {
        return;
    }
    uint64_t last = address + (1u << qemu_plugin_mem_size_shift(info)) - 1;
    for (uint64_t line = address >> LINE_BITS; line <= last >> LINE_BITS; line++) {
        if (!cache_touch(&l1, line)) {
            cache_touch(&l2, line);
        }
    }
}

static void on_block(unsigned int vcpu, void *data)
{
    if (recording && vcpu == recorder) {
        uint32_t id = (uint32_t)(uintptr_t)data;
        fwrite_unlocked(&id, sizeof id, 1, trace);
    }
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(block);
    if (simulate) {
        for (size_t i = 0; i < count; i++) {
            qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(block, i), on_memory,
                                             QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
        }
        return;
    }
    uint32_t number = ++next_id;
    flockfile(blocks);
    fprintf(blocks, "%" PRIx32 " %" PRIx64, number, qemu_plugin_tb_vaddr(block));
    for (size_t i = 0; i < count && i < MOST_INSNS; i++) {
        uint32_t word = 0;
        qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i), &word, sizeof word);
        fprintf(blocks, " %08" PRIx32, word);
    }
    fputc('\n', blocks);
    funlockfile(blocks);
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, QEMU_PLUGIN_CB_NO_REGS,
                                         (void *)(uintptr_t)number);
}

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1,
                       uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                       uint64_t a7, uint64_t a8)
{
    (void)id; (void)a3; (void)a4; (void)a5; (void)a6; (void)a7; (void)a8;
    if (number != SYS_GETPRIORITY || a1 != MARK) {
        return;
    }
    recorder = vcpu;
    recording = a2 != 0;
    if (simulate) {
        if (a2 == 2) {
            cache_clear(&l1);
            cache_clear(&l2);
        }
        if (recording) {
            l1.misses = l2.misses = 0;
        } else {
            fprintf(stderr, "misses %" PRIu64 " %" PRIu64 "\n", l1.misses, l2.misses);
        }
    } else if (!recording) {
        uint32_t end = 0; /* a section ends */
        fwrite_unlocked(&end, sizeof end, 1, trace);
        fflush(trace);
        fflush(blocks);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
    (void)info;
    recorder = 0; /* the main thread, whose accesses warm the caches before the first marker */
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "blocks=", 7)) {
            blocks = fopen(argv[i] + 7, "w");
        } else if (!strncmp(argv[i], "trace=", 6)) {
            trace = fopen(argv[i] + 6, "wb");
        } else if (!strncmp(argv[i], "l1=", 3)) {
            cache_open(&l1, argv[i] + 3);
        } else if (!strncmp(argv[i], "l2=", 3)) {
            cache_open(&l2, argv[i] + 3);
        } else {
            fprintf(stderr, "trace: unknown argument '%s'\n", argv[i]);
            return -1;
        }
    }
    simulate = l1.tags && l2.tags;
    if (!simulate && !(blocks && trace)) {
        fprintf(stderr, "trace: give blocks= and trace=, or l1= and l2=\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
