// The only program that test/native/bochs/pc.ts starts in its emulated PC, as process 1: runs the lines of /commands one by one.
// A line is words between tabs, NAME=VALUE words (the environment), then a program and its arguments. Output goes to the
// port that Bochs prints, far quicker than a serial line. Around the output of line N there is "\x01begin N" and
// "\x01end N STATUS"; at the end the machine is turned off.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void print(const char* text, ssize_t length) {
  for (ssize_t i = 0; i < length; ++i) outb((unsigned char)text[i], 0xe9);
}

static int run(char** words, char** environment) {
  int ends[2];
  char buffer[4096];
  if (pipe(ends)) return 126;
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    execve(words[0], words, environment);
    perror(words[0]);
    _exit(127);
  }
  close(ends[1]);
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) print(buffer, got);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(void) {
  char line[4096], mark[64];
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mount("proc", "/proc", "proc", 0, "");
  mount("sysfs", "/sys", "sysfs", 0, "");
  if (iopl(3)) perror("iopl");
  FILE* commands = fopen("/commands", "r");
  for (int n = 0; commands && fgets(line, sizeof line, commands); ++n) {
    char *words[64], *environment[64];
    int count = 0, variables = 0;
    line[strcspn(line, "\n")] = 0;
    for (char* word = strtok(line, "\t"); word && count < 63 && variables < 63; word = strtok(NULL, "\t"))
      if (count == 0 && strchr(word, '=')) environment[variables++] = word;
      else words[count++] = word;
    words[count] = environment[variables] = NULL;
    print(mark, snprintf(mark, sizeof mark, "\x01" "begin %d\n", n));
    const int status = run(words, environment);
    print(mark, snprintf(mark, sizeof mark, "\n\x01" "end %d %d\n", n, status));
  }
  // Bochs ends when this word comes to this port.
  for (const char* at = "Shutdown"; *at; ++at) outb((unsigned char)*at, 0x8900);
  for (;;) pause();
}
