/* A driver without a GPU: device memory is host memory, and a stream does its copies only when
   somebody waits for it. It refuses calls without a context and copies from memory not pinned. */

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, MOST = 512 };

typedef struct { char *to; const char *from; size_t size; } Copy;
typedef struct { Copy copies[MOST]; int count; } Stream;
typedef struct { char *start; size_t size; } Block;

static __thread void *current, *pushed[8];
static __thread int depth;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Block pinned[MOST], device[MOST];
static int streams, gpus = 1, broken;
static size_t unused = 8ull << 30;

/* One context a GPU; more than 32 bits. */
static int context_is_set(void) {
    uint64_t of = (uint64_t)current - 0x7fee00000001;
    return of < (uint64_t)(gpus < 1 ? 1 : gpus);
}

static int keep(Block *blocks, char *start, size_t size) {
    for (int i = 0; i < MOST; i++)
        if (!blocks[i].start) { blocks[i] = (Block){start, size}; return OK; }
    return OUT_OF_MEMORY;
}
static int drop(Block *blocks, char *start) {
    for (int i = 0; i < MOST; i++)
        if (start && blocks[i].start == start) { blocks[i].start = 0; free(start); return OK; }
    return INVALID_VALUE;
}
static int holds(Block *blocks, const char *start, size_t size) {
    for (int i = 0; i < MOST; i++)
        if (blocks[i].start && start >= blocks[i].start &&
            start + size <= blocks[i].start + blocks[i].size) return 1;
    return 0;
}
static int make(Block *blocks, char **out, size_t size) {
    if (broken) return broken;
    if (!context_is_set()) return INVALID_CONTEXT;
    if (size > (1u << 30)) return OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    *out = calloc(1, size);
    int code = keep(blocks, *out, size);
    pthread_mutex_unlock(&lock);
    return code;
}
static int queue(char *to, const char *from, size_t size, Stream *stream) {
    if (broken) return broken;
    if (!context_is_set()) return INVALID_CONTEXT;
    if (!stream || stream->count == MOST) return INVALID_VALUE;
    stream->copies[stream->count++] = (Copy){to, from, size};
    return OK;
}

void fake_gpus(int count) { gpus = count; }
void fake_free(size_t size) { unused = size; }
void fake_broken(int code) { broken = code; }  /* as after a kernel failed: to every call */
int fake_live(void) {
    int count = streams;
    for (int i = 0; i < MOST; i++) count += !!pinned[i].start + !!device[i].start;
    return count;
}

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : gpus < 0 ? 100 : OK; }
int cuGetErrorName(int code, const char **name) {
    *name = code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
          : code == 100 ? "CUDA_ERROR_NO_DEVICE" : 0;
    return *name ? OK : INVALID_VALUE;
}
int cuDriverGetVersion(int *version) { *version = 13020; return OK; }
int cuDeviceGetCount(int *count) { *count = gpus; return OK; }
int cuDeviceGet(int *handle, int ordinal) { *handle = ordinal; return OK; }
int cuDeviceGetName(char *name, int size, int handle) {
    strncpy(name, "Fake GPU", size);
    return OK;
}
int cuDeviceGetAttribute(int *value, int attribute, int handle) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : -1;
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int handle) {
    *context = (void *)(0x7fee00000001 + handle);
    return OK;
}
int cuCtxSynchronize(void) { return broken ? broken : context_is_set() ? OK : INVALID_CONTEXT; }
int cuMemGetInfo_v2(size_t *left, size_t *total) {
    *left = unused;
    *total = 8ull << 30;
    return broken ? broken : context_is_set() ? OK : INVALID_CONTEXT;
}
int cuCtxPushCurrent_v2(void *context) {
    if (depth == 8) return INVALID_CONTEXT;
    pushed[depth++] = current;
    current = context;
    return OK;
}
int cuCtxPopCurrent_v2(void **context) {
    if (!depth) return INVALID_CONTEXT;
    *context = current;
    current = pushed[--depth];
    return OK;
}
void *fake_current(void) { return current; }
int cuMemHostAlloc(char **out, size_t size, unsigned flags) { return make(pinned, out, size); }
int cuMemFreeHost(char *start) {
    pthread_mutex_lock(&lock);
    int code = broken ? broken : context_is_set() ? drop(pinned, start) : INVALID_CONTEXT;
    pthread_mutex_unlock(&lock);
    return code;
}
int cuMemAlloc_v2(char **out, size_t size) { return make(device, out, size); }
int cuMemFree_v2(uint64_t start) {
    pthread_mutex_lock(&lock);
    int code = broken ? broken : context_is_set() ? drop(device, (char *)start) : INVALID_CONTEXT;
    pthread_mutex_unlock(&lock);
    return code;
}
int cuStreamCreate(Stream **out, unsigned flags) {
    if (!context_is_set()) return INVALID_CONTEXT;
    *out = calloc(1, sizeof(Stream));
    streams++;
    return OK;
}
int cuStreamDestroy_v2(Stream *stream) { free(stream); streams--; return OK; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const char *from, size_t size, Stream *stream) {
    if (!holds(pinned, from, size) || !holds(device, (char *)to, size)) return INVALID_VALUE;
    return queue((char *)to, from, size, stream);
}
int cuMemcpyDtoHAsync_v2(char *to, uint64_t from, size_t size, Stream *stream) {
    if (!holds(pinned, to, size) || !holds(device, (char *)from, size)) return INVALID_VALUE;
    return queue(to, (char *)from, size, stream);
}
int cuStreamSynchronize(Stream *stream) {
    if (!context_is_set()) return INVALID_CONTEXT;
    for (int i = 0; i < stream->count; i++)
        memcpy(stream->copies[i].to, stream->copies[i].from, stream->copies[i].size);
    stream->count = 0;
    return OK;
}
