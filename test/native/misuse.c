/* What callers of the C interface get wrong: each an error with its code, none a crash. Prints one line per failure. */
#include <affuse/affuse.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static int failures = 0;
static affuse_error error;

static void expect(const char* what, int result, const char* code) {
  if (result == -1 && strcmp(error.code, code) == 0) return;
  printf("%s: expected %s, got %d %s\n", what, code, result, result ? error.code : "");
  ++failures;
}

int main(void) {
  float x[4] = {1, 2, 3, 4}, y[4];
  const int64_t dim[1] = {4};
  const affuse_tensor in = affuse_tensor_f32(x, 1, dim), out = affuse_tensor_f32(y, 1, dim);
  const affuse_attribute factor = {"factor", "2"}, unnamed = {NULL, "2"};
  affuse_tensor made;
  const char* const usage = "ERR_AFFUSE_USAGE";
#define RUN(inputs, n, attributes, a, outputs, m) \
  affuse_run("scale", "cpu", inputs, n, attributes, a, outputs, m, 1, &error)
  expect("no inputs", RUN(NULL, 1, &factor, 1, &out, 1), usage);
  expect("no attributes", RUN(&in, 1, NULL, 1, &out, 1), usage);
  expect("no outputs", RUN(&in, 1, &factor, 1, NULL, 1), usage);
  expect("fewer than no inputs", RUN(&in, -1, &factor, 1, &out, 1), usage);
  expect("fewer than no attributes", RUN(&in, 1, &factor, -1, &out, 1), usage);
  expect("fewer than no outputs", RUN(&in, 1, &factor, 1, &out, INT_MIN), usage);
  expect("more inputs than it has", RUN(&in, 2, &factor, 1, &out, 1), usage);
  expect("an attribute without a name", RUN(&in, 1, &unnamed, 1, &out, 1), "ERR_AFFUSE_ATTRIBUTE");
  expect("no operator", affuse_run(NULL, "cpu", &in, 1, NULL, 0, &out, 1, 1, &error), "ERR_AFFUSE_UNKNOWN_OPERATOR");
  expect("no such device", affuse_run("scale", "tpu", &in, 1, NULL, 0, &out, 1, 1, &error), "ERR_AFFUSE_DEVICE");
  expect("infer without inputs", affuse_infer("scale", "cpu", NULL, 1, NULL, 0, &made, 1, &error), usage);
  expect("infer without outputs", affuse_infer("scale", "cpu", &in, 1, NULL, 0, NULL, 1, &error), usage);
  expect("queue without inputs", affuse_queue("scale", "cuda", NULL, 1, NULL, 0, &out, 1, NULL, &error), usage);
  expect("at", affuse_operator_at(0, NULL, &error), usage);
  expect("find", affuse_operator_find("scale", NULL, &error), usage);
  expect("input", affuse_operator_input("scale", 0, NULL, &error), usage);
  expect("output", affuse_operator_output("scale", 0, NULL, &error), usage);
  expect("attribute", affuse_operator_attribute("scale", 0, NULL, &error), usage);
  expect("threads", affuse_run("scale", "cpu", &in, 1, NULL, 0, &out, 1, -1, &error), "ERR_AFFUSE_THREADS");
  if (affuse_run("nothing", "cpu", NULL, 0, NULL, 0, NULL, 0, 1, NULL) != -1) printf("an error that nobody asks for\n"), ++failures;
  if (RUN(&in, 1, &factor, 1, &out, 1) != 0 || y[3] != 8) printf("the right call: %s\n", error.code), ++failures;
  printf("%d failed\n", failures);
  return failures != 0;
}
