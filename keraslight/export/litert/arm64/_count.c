/* A QEMU plugin that counts executed instructions, block by block.
 *
 * The emulated program starts and ends a count by system calls that do nothing: a write of 0 bytes to file descriptor
 * MARK sets all counts to zero, one of 1 byte writes them to the file given as `to=`, a line "address instructions"
 * for each block that ran. Blocks that are translated again are listed again.
 *
 * Declared here are the few functions of QEMU's plugin interface, version 1, that are used, because Debian packages no
 * qemu-plugin.h. Source: https://www.qemu.org/docs/master/devel/tcg-plugins.html
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK 1000000
#define SYSTEM_CALL_WRITE 64 /* of ARM64 */
#define INLINE_ADD 0

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
typedef void (*translated_cb)(plugin_id, struct qemu_plugin_tb *);
typedef void (*syscall_cb)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated_cb);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_cb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t value);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

struct block {
  uint64_t address, instructions;
  struct block *next;
};

static struct block *blocks;
static const char *path;

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
  struct block *block = calloc(1, sizeof *block);
  if (!block) abort();
  block->address = qemu_plugin_tb_vaddr(tb);
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD, &block->instructions, qemu_plugin_tb_n_insns(tb));
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t descriptor, uint64_t buffer, uint64_t size,
                   uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) {
  if (number != SYSTEM_CALL_WRITE || descriptor != MARK) return;
  FILE *file = size ? fopen(path, "w") : NULL;
  for (struct block *block = blocks; block; block = block->next) {
    if (file && block->instructions) fprintf(file, "%" PRIu64 " %" PRIu64 "\n", block->address, block->instructions);
    if (!size) block->instructions = 0;
  }
  if (file) fclose(file);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments) {
  for (int i = 0; i < count; i++)
    if (!strncmp(arguments[i], "to=", 3)) path = strdup(arguments[i] + 3);
  if (!path) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
